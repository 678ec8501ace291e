import { describe, expect, test } from '@jest/globals';
import { BACKEND_REQUESTS, PROTOCOL_FEATURES, REQUESTS } from '../../src/vhost-user/requests.ts';
import type { RequestSpec } from '../../src/vhost-user/requests.ts';

// QEMU docs/interop/vhost-user.rst, "Front-end message types" and "Back-end message types" as of commit
// f6b615b52d1d (43 and 8 messages), with what QEMU 11 added for VHOST_USER_PROTOCOL_F_SHMEM:
// GET_SHMEM_CONFIG, SHMEM_MAP, SHMEM_UNMAP. Copied from there, not from the table under test.
const FRONT_END_MESSAGES = `
  GET_FEATURES 1, SET_FEATURES 2, SET_OWNER 3, RESET_OWNER 4, SET_MEM_TABLE 5, SET_LOG_BASE 6, SET_LOG_FD 7, SET_VRING_NUM 8,
  SET_VRING_ADDR 9, SET_VRING_BASE 10, GET_VRING_BASE 11, SET_VRING_KICK 12, SET_VRING_CALL 13, SET_VRING_ERR 14,
  GET_PROTOCOL_FEATURES 15, SET_PROTOCOL_FEATURES 16, GET_QUEUE_NUM 17, SET_VRING_ENABLE 18, SEND_RARP 19, NET_SET_MTU 20,
  SET_BACKEND_REQ_FD 21, IOTLB_MSG 22, SET_VRING_ENDIAN 23, GET_CONFIG 24, SET_CONFIG 25, CREATE_CRYPTO_SESSION 26,
  CLOSE_CRYPTO_SESSION 27, POSTCOPY_ADVISE 28, POSTCOPY_LISTEN 29, POSTCOPY_END 30, GET_INFLIGHT_FD 31, SET_INFLIGHT_FD 32,
  GPU_SET_SOCKET 33, RESET_DEVICE 34, VRING_KICK 35, GET_MAX_MEM_SLOTS 36, ADD_MEM_REG 37, REM_MEM_REG 38, SET_STATUS 39,
  GET_STATUS 40, GET_SHARED_OBJECT 41, SET_DEVICE_STATE_FD 42, CHECK_DEVICE_STATE 43, GET_SHMEM_CONFIG 44`;
const BACK_END_MESSAGES = `
  IOTLB_MSG 1, CONFIG_CHANGE_MSG 2, VRING_HOST_NOTIFIER_MSG 3, VRING_CALL 4, VRING_ERR 5, SHARED_OBJECT_ADD 6,
  SHARED_OBJECT_REMOVE 7, SHARED_OBJECT_LOOKUP 8, SHMEM_MAP 9, SHMEM_UNMAP 10`;
// The same page, "Protocol features"; 20 to 22 as in QEMU 11.1.
const FEATURES = `
  MQ 0, LOG_SHMFD 1, RARP 2, REPLY_ACK 3, NET_MTU 4, BACKEND_REQ 5, CROSS_ENDIAN 6, CRYPTO_SESSION 7, PAGEFAULT 8, CONFIG 9,
  BACKEND_SEND_FD 10, HOST_NOTIFIER 11, INFLIGHT_SHMFD 12, RESET_DEVICE 13, INBAND_NOTIFICATIONS 14, CONFIGURE_MEM_SLOTS 15,
  STATUS 16, XEN_MMAP 17, SHARED_OBJECT 18, DEVICE_STATE 19, GET_VRING_BASE_INFLIGHT 20, GPA_ADDRESSES 21, SHMEM 22`;

function listed(text: string): Record<string, number> {
  return Object.fromEntries(text.trim().split(/,\s+/).map((line) => {
    const [name, id] = line.split(' ');
    return [name, Number(id)];
  }));
}

const ids = (table: Readonly<Record<string, RequestSpec>>): Record<string, number> =>
  Object.fromEntries(Object.entries(table).map(([name, { id }]) => [name, id]));
const specs = Object.entries(REQUESTS) as [string, RequestSpec][];
const names = (chosen: (spec: RequestSpec) => boolean): string[] => specs.filter(([, spec]) => chosen(spec)).map(([name]) => name).sort();

describe('the table of requests', () => {
  test('has every message of the specification, under its number, and no other', () => {
    expect(ids(REQUESTS)).toEqual(listed(FRONT_END_MESSAGES));
    expect(ids(BACKEND_REQUESTS)).toEqual(listed(BACK_END_MESSAGES));
    expect(PROTOCOL_FEATURES).toEqual(listed(FEATURES));
  });

  // "Communication": those that carry descriptors, and those that are answered without REPLY_ACK; GET_INFLIGHT_FD's
  // and POSTCOPY_ADVISE's descriptors come with the answer.
  test('says which messages carry descriptors', () => {
    expect(names(({ fdCountMax }) => fdCountMax !== undefined)).toEqual([
      'ADD_MEM_REG', 'GPU_SET_SOCKET', 'REM_MEM_REG', 'SET_BACKEND_REQ_FD', 'SET_DEVICE_STATE_FD', 'SET_INFLIGHT_FD', 'SET_LOG_BASE',
      'SET_LOG_FD', 'SET_MEM_TABLE', 'SET_VRING_CALL', 'SET_VRING_ERR', 'SET_VRING_KICK',
    ]);
  });

  test('says which messages have an answer of their own', () => {
    expect(names(({ reply }) => reply !== undefined)).toEqual([
      'CHECK_DEVICE_STATE', 'CREATE_CRYPTO_SESSION', 'GET_CONFIG', 'GET_FEATURES', 'GET_INFLIGHT_FD', 'GET_MAX_MEM_SLOTS',
      'GET_PROTOCOL_FEATURES', 'GET_QUEUE_NUM', 'GET_SHARED_OBJECT', 'GET_SHMEM_CONFIG', 'GET_STATUS', 'GET_VRING_BASE', 'IOTLB_MSG',
      'POSTCOPY_ADVISE', 'POSTCOPY_END', 'SET_DEVICE_STATE_FD', 'SET_LOG_BASE',
    ]);
  });

  test('names the protocol feature of each message that needs one', () => {
    const needs = (feature: string): string[] => names((spec) => spec.needs === feature);
    expect(needs('MQ')).toEqual(['GET_QUEUE_NUM']);
    expect(needs('LOG_SHMFD')).toEqual(['SET_LOG_BASE']);
    expect(needs('CONFIG')).toEqual(['GET_CONFIG', 'SET_CONFIG']);
    expect(needs('INFLIGHT_SHMFD')).toEqual(['GET_INFLIGHT_FD', 'SET_INFLIGHT_FD']);
    expect(needs('CONFIGURE_MEM_SLOTS')).toEqual(['ADD_MEM_REG', 'GET_MAX_MEM_SLOTS', 'REM_MEM_REG']);
    expect(needs('STATUS')).toEqual(['GET_STATUS', 'SET_STATUS']);
    expect(needs('PAGEFAULT')).toEqual(['POSTCOPY_ADVISE', 'POSTCOPY_END', 'POSTCOPY_LISTEN']);
    expect(needs('DEVICE_STATE')).toEqual(['CHECK_DEVICE_STATE', 'SET_DEVICE_STATE_FD']);
  });

  test('says why of each message that is refused, and answers in the negative where that is a number', () => {
    expect(names(({ refused }) => refused !== undefined)).toEqual([
      'CHECK_DEVICE_STATE', 'CLOSE_CRYPTO_SESSION', 'CREATE_CRYPTO_SESSION', 'GET_SHARED_OBJECT', 'GET_SHMEM_CONFIG', 'GPU_SET_SOCKET',
      'IOTLB_MSG', 'NET_SET_MTU', 'POSTCOPY_ADVISE', 'POSTCOPY_END', 'POSTCOPY_LISTEN', 'SEND_RARP', 'SET_DEVICE_STATE_FD',
      'SET_VRING_ENDIAN', 'VRING_KICK',
    ]);
    for (const [, { refused, reply }] of specs) {
      if (refused === undefined) continue;
      expect(refused.why.length).toBeGreaterThan(10);
      expect(refused.reply !== undefined).toBe(reply === 'u64');
      expect(refused.reply).not.toBe(0n);
    }
  });
});
