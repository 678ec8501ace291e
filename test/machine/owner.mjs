// A process of the leash test: boots a machine, plugs a device with a back end, and waits to be killed.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { boot, ivshmem } from 'rootport';

const machine = await boot();
await machine.plug(ivshmem());
const { directory, process: qemu } = machine.innards;
const sockets = readdirSync(directory).map((name) => join(directory, name));
console.log(JSON.stringify({ qemu: qemu.pid, directory, sockets }));
setInterval(() => {}, 1000);
