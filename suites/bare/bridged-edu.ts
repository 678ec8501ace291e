// QEMU arguments: edu in slots of conventional bridges on q35, for what becomes of its INTx pin on the way up.
// Root port (slot 0x11) -> PCIe-to-PCI bridge -> slots 1 to 6, and in 7 a PCI bridge with slots 8 to 11 of its own.
const hex = (slot: number): string => `0x${slot.toString(16)}`;

/** Slots behind one bridge: `edu1` and so on. */
export const BRIDGED_SLOTS = [1, 2, 3, 4, 5, 6];
/** Slots behind a bridge behind that bridge: `deep8` and so on. */
export const DEEP_SLOTS = [8, 9, 10, 11];

/** Without a device: ports and bridges alone. */
export const BRIDGES = [
  '-device', 'pcie-root-port,id=far,bus=pcie.0,addr=0x11.0,chassis=9,slot=9',
  '-device', 'pcie-pci-bridge,id=conventional,bus=far',
  '-device', 'pci-bridge,id=deeper,bus=conventional,addr=0x7,chassis_nr=10',
];

export const BRIDGED_EDU = [
  ...BRIDGES,
  ...BRIDGED_SLOTS.flatMap((slot) => ['-device', `edu,id=edu${slot},bus=conventional,addr=${hex(slot)}`]),
  ...DEEP_SLOTS.flatMap((slot) => ['-device', `edu,id=deep${slot},bus=deeper,addr=${hex(slot)}`]),
];

/** The I/O APIC's pin that INTA of such a slot is: pin A of slot s is pin s mod 4 of its bridge, and so on up. */
export const bridgedLine = (slot: number): number => 20 + (0x11 + slot) % 4;
export const deepLine = (slot: number): number => 20 + (0x11 + 7 + slot) % 4;
