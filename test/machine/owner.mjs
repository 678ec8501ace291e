// A process of the leash test: boots or restores (`boot` or `restore`, its argument) a machine, plugs a device with a back
// end, and waits to be killed.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { boot, ivshmem, restore } from 'rootport';

const machine = await (process.argv[2] === 'boot' ? boot() : restore());
await machine.plug(ivshmem());
const { directory, process: qemu } = machine.innards;
const sockets = readdirSync(directory).map((name) => join(directory, name));
console.log(JSON.stringify({ qemu: qemu.pid, directory, sockets }));
setInterval(() => {}, 1000);
