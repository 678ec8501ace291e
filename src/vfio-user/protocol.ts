// vfio-user on the wire: commands, flags and layouts (QEMU docs/interop/vfio-user.rst), and those of VFIO that it
// carries (Linux include/uapi/linux/vfio.h). Numbers only; what they do is in server.ts and interrupt-lines.ts.
import { layout, u16, u32, u64 } from '../bytes/layout.ts';

export const VFIO_USER = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_REGION_IO_FDS: 6,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  /** These two are the server's: it maps the client's memory, and sends neither. */
  DMA_READ: 11,
  DMA_WRITE: 12,
  DEVICE_RESET: 13,
  REGION_WRITE_MULTI: 15,
  DEVICE_FEATURE: 16,
  MIG_DATA_READ: 17,
  MIG_DATA_WRITE: 18,
} as const;

export const HEADER_FLAG = { TYPE: 0xf, COMMAND: 0, REPLY: 1, NO_REPLY: 0x10, ERROR: 0x20 } as const;

/** The version that is spoken; QEMU 11.1 proposes 0.0. */
export const VERSION = { major: 0, minor: 0 } as const;

/** What the server takes and gives of data in one message, bytes: what fits into a socket that nobody reads yet. */
export const DATA_BYTES_MAX = 1 << 16;
/** Descriptors that the server takes in one message: QEMU refuses a server that says more (hw/vfio-user/proxy.c). */
export const FDS_MAX = 16;

export const HEADER = layout('vfio-user header', 16, {
  messageId: u16(0), command: u16(2), sizeBytes: u32(4, 'of the whole message'), flags: u32(8), error: u32(12, 'errno, of a reply'),
});

/** What follows is JSON that ends in a NUL. */
export const VERSION_HEAD = layout('VFIO_USER_VERSION', 4, { major: u16(0), minor: u16(2) });

export const DMA_MAP = layout('VFIO_USER_DMA_MAP', 32, {
  argsz: u32(0), flags: u32(4, 'bit 0 readable, bit 1 writable'), offset: u64(8), address: u64(16), size: u64(24),
});

export const DMA_UNMAP = layout('VFIO_USER_DMA_UNMAP', 24, { argsz: u32(0), flags: u32(4), address: u64(8), size: u64(16) });

/** struct vfio_device_info */
export const DEVICE_INFO = layout('vfio_device_info', 16, { argsz: u32(0), flags: u32(4), regionCount: u32(8), irqCount: u32(12) });
export const DEVICE_FLAG = { RESET: 1, PCI: 2 } as const;

/** struct vfio_region_info */
export const REGION_INFO = layout('vfio_region_info', 32, {
  argsz: u32(0), flags: u32(4), index: u32(8), capOffset: u32(12), size: u64(16), offset: u64(24),
});
export const REGION_FLAG = { READ: 1, WRITE: 2 } as const;

/** struct vfio_irq_info */
export const IRQ_INFO = layout('vfio_irq_info', 16, { argsz: u32(0), flags: u32(4), index: u32(8), count: u32(12) });
export const IRQ_FLAG = { EVENTFD: 1 } as const;

/** struct vfio_irq_set, without what follows it */
export const IRQ_SET = layout('vfio_irq_set', 20, { argsz: u32(0), flags: u32(4), index: u32(8), start: u32(12), count: u32(16) });
export const IRQ_SET_FLAG = { DATA_NONE: 1, DATA_EVENTFD: 4, TRIGGER: 32 } as const;

export const REGION_ACCESS = layout('VFIO_USER_REGION_READ and _WRITE', 16, { offset: u64(0), region: u32(8), count: u32(12) });

/** VFIO_PCI_*_REGION_INDEX: 0 to 5 are the BARs. */
export const REGION = { CONFIG: 7, COUNT: 9 } as const;

/** VFIO_PCI_*_IRQ_INDEX */
export const IRQ = { MSIX: 2, COUNT: 5 } as const;

/** errno(3), as replies carry it. */
export const ERRNO = { EEXIST: 17, EINVAL: 22, ENOTSUP: 95 } as const;
