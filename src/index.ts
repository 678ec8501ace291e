// The public API: re-exports only. `rootport/jest` has useMachine and the matchers.
export * from './errors.ts';
export { boot } from './machine/boot.ts';
export type { BootOptions } from './machine/options.ts';
export { Machine } from './machine/machine.ts';
export { PciFunction, type GuestResource } from './machine/pci-function.ts';
export type { PlugOptions } from './machine/plug.ts';
export type { Leftover, UnplugOptions, UnplugReport } from './machine/unplug.ts';
export type { Guest, AttemptResult, CommandResult, GuestProcess, RunOptions } from './guest/guest.ts';
export { buildModule, type BuiltModule, type Kernel, type KernelChoice, type OwnKernel, type OwnKernelTree } from './image/index.ts';
export { pc, q35, q35Iommu, q35NativeHotplug, type MachineType } from './qemu/preset.ts';
export type { Attachment, AttachSite, ChardevSpec, Device, FireWitness, NetdevSpec, PropertyValue } from './qemu/attachment.ts';
export type { PciAccess, AccessWidth, ConfigWidth } from './pci/access.ts';
export { EDU, edu, type EduOptions } from './devices/edu/index.ts';
export { IVSHMEM, ivshmem, Ivshmem, type IvshmemOptions } from './devices/ivshmem/index.ts';
export { virtioBlk, type VirtioBlk, type VirtioBlkOptions } from './devices/virtio-blk/index.ts';
export { virtioRng, type VirtioRng, type VirtioRngOptions } from './devices/virtio-rng/index.ts';
export { virtioNet, type VirtioNet, type VirtioNetOptions } from './devices/virtio-net/index.ts';
export { loopback } from './devices/virtio-net/loopback.ts';
export { capture, type Capture } from './devices/virtio-net/capture.ts';
export { netLink, type NetLink } from './devices/virtio-net/link.ts';
export { scriptedPeer, type NextFrameOptions, type ScriptedPeer, type ScriptedPeerOptions } from './devices/virtio-net/scripted-peer.ts';
export type { Delivery, NetPeer, NetPort, SendOptions, SentHeader } from './devices/virtio-net/peer.ts';
export type { NetCounts, RefusedFrame } from './devices/virtio-net/device.ts';
export { decodeEthernet, encodeEthernet, ETHERTYPE, macBytes, macText, type EthernetFrame } from './devices/virtio-net/ethernet.ts';
export {
  KEYBOARD, MOUSE, TABLET, virtioInput,
  type AbsInfo, type InputCapabilities, type InputEvent, type InputIds, type InputStatus, type VirtioInput, type VirtioInputOptions,
} from './devices/virtio-input/index.ts';
export { virtioVsock, type VirtioVsock, type VirtioVsockOptions, type VsockConnection, type VsockListener } from './devices/virtio-vsock/index.ts';
export { i2cEeprom, virtioI2c, type I2cEeprom, type I2cEepromOptions, type I2cTarget, type I2cTransfer, type VirtioI2c, type VirtioI2cOptions } from './devices/virtio-i2c/index.ts';
export { virtioGpio, type GpioChange, type GpioDirection, type GpioIrqType, type GpioLine, type VirtioGpio, type VirtioGpioOptions } from './devices/virtio-gpio/index.ts';
export type { BackEndFaults, VhostUserDevice } from './devices/vhost-user-device.ts';
export type { WaitOptions } from './devices/arrivals.ts';
export { virtioDevice, type PluggableVirtioDevice, type VirtioDeviceOptions } from './devices/virtio-device/index.ts';
export type { AcknowledgeRule, DmaBuffer, ProbedFunction } from './guest/probe-function.ts';
export type { ProbeEvent, VectorCount, VectorKind } from './guest/probe-protocol.ts';
export type { CallVerdict, ConfigChange, DeviceGate, HeldRequest, QueueGate, RequestAnswer } from './virtio/queue-gate.ts';
export type { RefusedRequest } from './devices/virtio-blk/index.ts';
export type { RingOptions } from './devices/ring-options.ts';
export { errnoNameOf } from './guest/probe-protocol.ts';
export type { VirtioDevice } from './virtio/device.ts';
export type { DescriptorChain, Virtqueue } from './virtio/virtqueue.ts';
export { decodeAer, type AerCapability, type CorrectableError, type UncorrectableError } from './pci/aer.ts';
export { ConfigImage } from './pci/config-image.ts';
export { parseDump, parsePciIds, renderLspci, type LspciFunction, type LspciOptions, type PciIds } from './pci/lspci/index.ts';
export { readPciFunctions } from './guest/pci-functions.ts';
