// A process of the kept snapshots' test: restores a machine, and says what it was told on the way.
import { restore } from 'rootport';

const say = (what, text) => console.log(JSON.stringify({ [what]: text }));
const machine = await restore({ progress: { start: (text) => say('start', text), update() {}, succeed() {}, fail() {}, note: (text) => say('note', text) } });
say('description', machine.description);
say('boot id', (await machine.guest.run('cat /proc/sys/kernel/random/boot_id')).stdout.trim());
await machine.close();
