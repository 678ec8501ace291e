// The console device's wire layouts (virtio 1.2, 5.3.3 to 5.3.6).
import { layout, u16, u32 } from '../../bytes/layout.ts';

/** Feature bits (5.3.3). */
export const VIRTIO_CONSOLE_F = {
  /** cols and rows of config space are valid. */
  VIRTIO_CONSOLE_F_SIZE: 0,
  /** max_nr_ports is valid, and the control queues are there. */
  VIRTIO_CONSOLE_F_MULTIPORT: 1,
  /** emerg_wr is valid. */
  VIRTIO_CONSOLE_F_EMERG_WRITE: 2,
} as const;

/** struct virtio_console_config (5.3.4). */
export const consoleConfig = layout('virtio_console_config', 12, {
  cols: u16(0, 'characters in a line'),
  rows: u16(2),
  max_nr_ports: u32(4),
  emerg_wr: u32(8, 'a character that the driver writes before anything else works'),
});

/** Events of virtio_console_control (5.3.6.2). */
export const CONTROL = {
  /** From the driver: it is there (value 1) or could not be (0). */
  VIRTIO_CONSOLE_DEVICE_READY: 0,
  /** To the driver: there is a port of this id. */
  VIRTIO_CONSOLE_DEVICE_ADD: 1,
  /** To the driver: there is none any more. */
  VIRTIO_CONSOLE_DEVICE_REMOVE: 2,
  /** From the driver: it has the port (1), or cannot (0). */
  VIRTIO_CONSOLE_PORT_READY: 3,
  /** To the driver: the port is a console. */
  VIRTIO_CONSOLE_CONSOLE_PORT: 4,
  /** To the driver: consoleResize follows. */
  VIRTIO_CONSOLE_RESIZE: 5,
  /** Both ways: the port was opened (1) or closed (0). */
  VIRTIO_CONSOLE_PORT_OPEN: 6,
  /** To the driver: the name follows, without a NUL. */
  VIRTIO_CONSOLE_PORT_NAME: 7,
} as const;

/** struct virtio_console_control (5.3.6.2). */
export const consoleControl = layout('virtio_console_control', 8, {
  id: u32(0, "the port's; 0xffffffff where it is not about one"),
  event: u16(4, 'one of CONTROL'),
  value: u16(6),
});

/** struct virtio_console_resize (5.3.6.2). */
export const consoleResize = layout('virtio_console_resize', 4, {
  cols: u16(0),
  rows: u16(2),
});

export function controlName(event: number): string {
  return Object.keys(CONTROL)[event] ?? `event ${event}`;
}
