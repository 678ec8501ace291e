// The tests of device.test.ts again, on packed rings.
import '../../virtio/packed-layout.ts';
import './device.test.ts';
