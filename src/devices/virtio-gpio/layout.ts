// The GPIO device's wire layouts and constants (virtio 1.2, 5.18).
import { layout, u16, u32, u8 } from '../../bytes/layout.ts';

/** The device has interrupts, and an event queue for them (5.18.3). */
export const VIRTIO_GPIO_F_IRQ = 0;

/** struct virtio_gpio_config (5.18.4). */
export const gpioConfig = layout('virtio_gpio_config', 8, {
  ngpio: u16(0, 'lines'),
  padding: u16(2),
  gpio_names_size: u32(4, 'bytes of all names, each with its NUL'),
});

/** struct virtio_gpio_request (5.18.6). */
export const gpioRequest = layout('virtio_gpio_request', 8, {
  type: u16(0, 'VIRTIO_GPIO_MSG'),
  gpio: u16(2, 'the line'),
  value: u32(4),
});

/** struct virtio_gpio_response (5.18.6); that of GET_NAMES has all names in place of the value. */
export const gpioResponse = layout('virtio_gpio_response', 2, { status: u8(0, 'VIRTIO_GPIO_STATUS'), value: u8(1) });

export const VIRTIO_GPIO_MSG = { GET_NAMES: 1, GET_DIRECTION: 2, SET_DIRECTION: 3, GET_VALUE: 4, SET_VALUE: 5, IRQ_TYPE: 6 } as const;
export const VIRTIO_GPIO_STATUS = { OK: 0, ERR: 1 } as const;
export const VIRTIO_GPIO_DIRECTION = { NONE: 0, OUT: 1, IN: 2 } as const;
export const VIRTIO_GPIO_IRQ_TYPE = { NONE: 0, EDGE_RISING: 1, EDGE_FALLING: 2, EDGE_BOTH: 3, LEVEL_HIGH: 4, LEVEL_LOW: 8 } as const;
/** The status of a buffer that the event queue gives back: an interrupt, or none (5.18.6.8). */
export const VIRTIO_GPIO_IRQ_STATUS = { INVALID: 0, VALID: 1 } as const;
