// One line of QEMU's trace on its stderr, of the two events that tell of interrupts: `apic_deliver_irq` (hw/intc/apic.c)
// and `pci_cfg_write` (hw/pci/pci_host.c). With `-msg timestamp=on` each has the time of day before it: to 10.0 as
// `<pid>@<seconds>:` (the trace's own), in 11.1 as RFC 3339, as messages have it.

/** A write to a function's config space. */
export interface ConfigWrite {
  /** `01:00.0` */
  readonly slot: string;
  readonly offset: number;
  readonly value: number;
}

/** A message that an APIC delivers. */
export interface DeliveredMessage {
  readonly destination: number;
  readonly destinationMode: number;
  /** The CPU's vector. */
  readonly vector: number;
}

/** `seconds`: since 1970, to the microsecond; undefined when the line has none. */
export type TraceLine = { readonly seconds: number | undefined } &
  ({ readonly message: DeliveredMessage; readonly configWrite?: undefined } | { readonly configWrite: ConfigWrite });

const LINE = /^(?:\d+@(\d+\.\d+):|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)Z )?(?:apic_deliver_irq dest (\d+) dest_mode (\d+) delivery_mode \d+ vector (\d+) |pci_cfg_write \S+ ([0-9a-f]{2}:[0-9a-f]{2}\.\d) @0x([0-9a-f]+) <- 0x([0-9a-f]+))/;

/** Undefined for any other line. */
export function parseTraceLine(line: string): TraceLine | undefined {
  const match = LINE.exec(line);
  if (match === null) return undefined;
  const [, sinceEpoch, dateTime, fraction, destination, mode, vector, slot = '', offset = '', value = ''] = match;
  const seconds = sinceEpoch !== undefined ? Number(sinceEpoch) : dateTime !== undefined ? Date.parse(`${dateTime}Z`) / 1000 + Number(fraction) : undefined;
  return destination === undefined
    ? { seconds, configWrite: { slot, offset: parseInt(offset, 16), value: parseInt(value, 16) } }
    : { seconds, message: { destination: Number(destination), destinationMode: Number(mode), vector: Number(vector) } };
}
