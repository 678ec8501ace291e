// The end of a driver's probe(). Its link in sysfs is there before probe() has run (Linux drivers/base/dd.c,
// driver_sysfs_add); a bind of a bound device waits for the device's lock, which probe() runs under, and is then refused
// (drivers/base/bus.c, bind_store).

/** A shell command that waits until probe() of the function's driver has returned; it fails, as it does without a driver. */
export function awaitProbe(bdf: string): string {
  return `echo ${bdf} 2>/dev/null >/sys/bus/pci/devices/${bdf}/driver/bind`;
}
