import { expect, test } from '@jest/globals';
import { blkConfig, blkRequestHeader } from '../../../src/devices/virtio-blk/layout.ts';

test('virtio_blk_config has the offsets of Linux include/uapi/linux/virtio_blk.h', () => {
  const offsets = Object.fromEntries(Object.entries(blkConfig.fields).map(([name, { offset, widthBytes }]) => [name, `${offset}+${widthBytes}`]));
  expect(offsets).toEqual({
    capacity: '0+8', size_max: '8+4', seg_max: '12+4', cylinders: '16+2', heads: '18+1', sectors: '19+1', blk_size: '20+4',
    physical_block_exp: '24+1', alignment_offset: '25+1', min_io_size: '26+2', opt_io_size: '28+4', writeback: '32+1', num_queues: '34+2',
    max_discard_sectors: '36+4', max_discard_seg: '40+4', discard_sector_alignment: '44+4',
    max_write_zeroes_sectors: '48+4', max_write_zeroes_seg: '52+4', write_zeroes_may_unmap: '56+1', unused1: '57+3',
  });
  expect(blkConfig.sizeBytes).toBe(60);
});

test('the request header is type, reserved, sector in 16 bytes', () => {
  expect(Buffer.from(blkRequestHeader.encode({ type: 1, sector: 0x0102030405060708n })).toString('hex')).toBe('01000000000000000807060504030201');
});
