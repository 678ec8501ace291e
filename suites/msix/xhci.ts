// Interrupters of QEMU's xHCI controller, raised at will: a device with 16 MSI messages, 16 MSI-X vectors and INTx.
// An interrupter whose dequeue pointer is written behind its event ring's end, with Event Handler Busy, has events
// to report and raises its interrupt (xHCI 1.2, 4.9.4 and 5.5.2; QEMU hw/usb/hcd-xhci.c, xhci_runtime_write). No
// USB device has a part in it, and no event is in the ring.
import { qemuDevice, type Device, type ProbedFunction } from 'rootport';

export const XHCI_INTERRUPTERS = 16;

const USBCMD_INTERRUPTER_ENABLE = 1n << 2n;
const IMAN_PENDING_ENABLE = 0x3n;
const EVENT_HANDLER_BUSY = 0x8n;
const RING = { at: 4096n, trbs: 16 };

export const xhci = (): Device => qemuDevice('nec-usb-xhci', { msi: 'on', msix: 'on' });

/** Set the interrupters up; returns what raises one. The function's DMA buffer holds their ring. */
export async function openInterrupters(probe: ProbedFunction): Promise<(interrupter: number) => Promise<void>> {
  const memory = await probe.allocateDma({ sizeBytes: 8192 });
  const segment = Buffer.alloc(16);
  segment.writeBigUInt64LE(memory.busAddress + RING.at, 0);
  segment.writeUInt32LE(RING.trbs, 8);
  await memory.write(0, segment);
  const operational = Number(await probe.memRead(0, 0x00, 4)) & 0xff;
  const runtime = Number(await probe.memRead(0, 0x18, 4));
  const write = (at: number, value: bigint): Promise<void> => probe.memWrite(0, at, 4, value & 0xffffffffn);
  const write64 = async (at: number, value: bigint): Promise<void> => {
    await write(at, value);
    await write(at + 4, value >> 32n);
  };
  await write(operational, USBCMD_INTERRUPTER_ENABLE);
  return async (interrupter) => {
    const registers = runtime + 0x20 + 0x20 * interrupter;
    await write(registers + 0x08, 1n); // segments
    await write64(registers + 0x10, memory.busAddress); // the segment table: the ring is empty again
    await write(registers, IMAN_PENDING_ENABLE);
    await write64(registers + 0x18, (memory.busAddress + RING.at + 16n) | EVENT_HANDLER_BUSY);
  };
}
