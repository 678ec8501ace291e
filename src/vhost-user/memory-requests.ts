// Requests about guest memory: the table as a whole, region by region, and the log of what is written to it.
import { ProtocolError } from '../errors.ts';
import { MEMORY_SLOTS_MAX } from './protocol.ts';
import type { Handlers, SessionState } from './session-state.ts';

type MemoryRequests = Pick<Handlers,
  'SET_MEM_TABLE' | 'GET_MAX_MEM_SLOTS' | 'ADD_MEM_REG' | 'REM_MEM_REG' | 'SET_LOG_BASE' | 'SET_LOG_FD'>;

export function memoryRequests(state: SessionState): MemoryRequests {
  const { memory, rings, dirtyLog } = state;
  const ended = (): boolean => state.ending;
  return {
    SET_MEM_TABLE: ({ payload, fds }) => {
      if (fds.count !== payload.length) {
        throw new ProtocolError(`vhost-user: SET_MEM_TABLE of ${payload.length} regions with ${fds.count} descriptors`, { received: payload });
      }
      const change = memory.prepare(payload, payload.map((_, index) => fds.peek(index) as number));
      return rings.change(change, 'SET_MEM_TABLE', ended);
    },
    GET_MAX_MEM_SLOTS: () => BigInt(MEMORY_SLOTS_MAX),
    ADD_MEM_REG: ({ payload, fds }) => {
      const fd = fds.peek(0);
      if (fd === undefined) throw new ProtocolError('vhost-user: ADD_MEM_REG without a descriptor', { received: payload });
      return rings.change(memory.prepareAdd(payload, fd), 'ADD_MEM_REG', ended);
    },
    REM_MEM_REG: ({ payload }) => rings.change(memory.prepareRemove(payload), 'REM_MEM_REG', ended),
    SET_LOG_BASE: ({ payload, fds }) => {
      const fd = fds.peek(0);
      if (fd === undefined) throw new ProtocolError('vhost-user: SET_LOG_BASE without a descriptor', { received: payload });
      dirtyLog.setBase(fd, payload);
      return 0n;
    },
    SET_LOG_FD: ({ fds }) => {
      const fd = fds.take(0);
      if (fd === undefined) throw new ProtocolError('vhost-user: SET_LOG_FD without a descriptor');
      dirtyLog.setEvent(fd);
    },
  };
}
