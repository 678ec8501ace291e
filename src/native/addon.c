/* SPDX-License-Identifier: MIT
 *
 * rootport.node: what Node cannot do itself and a device back end needs. File descriptors over Unix
 * sockets (SCM_RIGHTS), shared mappings that can be taken away safely, eventfds, and polling of any
 * of them on Node's own loop.
 *
 * It holds no meaning: src/native/index.ts is its only caller and the place of every rule. Each
 * function returns a result >= 0 (or an ArrayBuffer), or -errno, and never throws: an Error made here
 * would belong to another realm than the caller's under Jest. All state hangs off the napi_env, since
 * one process may load this file several times (worker threads) and several vm contexts share one load.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <node_api.h>
#include <uv.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { VERSION = 1 }; /* of the functions below; src/native/index.ts wants the same */
enum { MAX_FDS = 253 }; /* SCM_MAX_FD of Linux's include/net/scm.h: descriptors in one message */

struct instance;

typedef struct poll {
  uv_poll_t uv; /* first: a uv_handle_t * is a poll * */
  struct instance *instance;
  struct poll *previous, *next;
  napi_ref callback;
  uint32_t id;
  int fd;
  bool is_counter; /* an eventfd: read here, the callback gets the count */
} poll;

typedef struct mapping {
  struct mapping *next;
  void *address;
  size_t size;
} mapping;

typedef struct instance {
  napi_env env;
  uv_loop_t *loop;
  napi_async_cleanup_hook_handle cleanup;
  poll *polls;
  mapping *mappings;
  uint32_t last_id;
  size_t open; /* uv handles not yet closed */
  bool ending;
} instance;

/* ---- values ---- */

#define ARGUMENTS(n)        \
  napi_value argv[n];       \
  size_t argc = n;          \
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL)

static napi_value number(napi_env env, double value) {
  napi_value result = NULL;
  napi_create_double(env, value, &result);
  return result;
}

/* A system call's result, or -errno. */
static napi_value outcome(napi_env env, long result) {
  return number(env, result < 0 ? -errno : result);
}

static napi_value failure(napi_env env, int error) { return number(env, -error); }

static int to_int(napi_env env, napi_value value) {
  int32_t result = -1;
  napi_get_value_int32(env, value, &result);
  return result;
}

static int64_t to_int64(napi_env env, napi_value value) {
  int64_t result = -1;
  napi_get_value_int64(env, value, &result);
  return result;
}

static instance *instance_of(napi_env env) {
  void *data = NULL;
  napi_get_instance_data(env, &data);
  return data;
}

/* The elements of a typed array of the given type, or NULL. */
static void *elements(napi_env env, napi_value value, napi_typedarray_type wanted, size_t *length) {
  napi_typedarray_type type;
  void *data = NULL;
  *length = 0;
  if (napi_get_typedarray_info(env, value, &type, length, &data, NULL, NULL) != napi_ok || type != wanted) {
    *length = 0;
    return NULL;
  }
  return data;
}

/* ---- Unix sockets ---- */

static int unix_address(napi_env env, napi_value value, struct sockaddr_un *address) {
  size_t length = 0;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok || length == 0) return EINVAL;
  if (length >= sizeof address->sun_path) return ENAMETOOLONG;
  napi_get_value_string_utf8(env, value, address->sun_path, sizeof address->sun_path, &length);
  return 0;
}

/* unixSocket(path, listening): a listening or a connected stream socket. */
static napi_value unix_socket(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  struct sockaddr_un address;
  bool listening = false;
  int error = unix_address(env, argv[0], &address);
  if (error != 0) return failure(env, error);
  napi_get_value_bool(env, argv[1], &listening);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return failure(env, errno);
  int result = listening ? bind(fd, (struct sockaddr *)&address, sizeof address)
                         : connect(fd, (struct sockaddr *)&address, sizeof address);
  if (result == 0 && listening) result = listen(fd, 16);
  if (result == 0) return number(env, fd);
  error = errno;
  close(fd);
  return failure(env, error);
}

static napi_value accept_socket(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  return outcome(env, accept4(to_int(env, argv[0]), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

/* socketPair(out: Int32Array(2)) */
static napi_value socket_pair(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  size_t length;
  int32_t *out = elements(env, argv[0], napi_int32_array, &length);
  if (length < 2) return failure(env, EINVAL);
  return outcome(env, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, out));
}

typedef union {
  struct cmsghdr header; /* for its alignment */
  char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
} control_buffer;

/* send(fd, bytes: Uint8Array, fds: Int32Array): bytes sent. The fds go with the first of them. */
static napi_value send_message(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  size_t size, count;
  struct iovec piece = { .iov_base = elements(env, argv[1], napi_uint8_array, &size) };
  int32_t *fds = elements(env, argv[2], napi_int32_array, &count);
  if (size == 0 || count > MAX_FDS) return failure(env, EINVAL);
  piece.iov_len = size;
  control_buffer control;
  struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  return outcome(env, sendmsg(to_int(env, argv[0]), &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

/*
 * receive(fd, into: Uint8Array, out: Int32Array(2 + n)): bytes received, 0 when the peer closed.
 * out[0] = descriptors received (at most n), out[1] = 1 when more were lost (MSG_CTRUNC), then they.
 */
static napi_value receive_message(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  size_t size, length;
  struct iovec piece = { .iov_base = elements(env, argv[1], napi_uint8_array, &size) };
  int32_t *out = elements(env, argv[2], napi_int32_array, &length);
  if (size == 0 || length < 2 || length - 2 > MAX_FDS) return failure(env, EINVAL);
  piece.iov_len = size;
  control_buffer control;
  /* CMSG_LEN, not CMSG_SPACE: the padding after an odd count would let one descriptor more in. */
  struct msghdr message = {
    .msg_iov = &piece, .msg_iovlen = 1,
    .msg_control = control.bytes, .msg_controllen = CMSG_LEN((length - 2) * sizeof(int)),
  };
  out[0] = out[1] = 0;
  ssize_t received = recvmsg(to_int(env, argv[0]), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (received < 0) return failure(env, errno);
  out[1] = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    if (count > length - 2 - (size_t)out[0]) count = length - 2 - (size_t)out[0];
    memcpy(out + 2 + out[0], CMSG_DATA(header), count * sizeof(int));
    out[0] += (int32_t)count;
  }
  return number(env, (double)received);
}

/* unreadBytes(fd): 0 when the peer has read all that was sent; else what the kernel holds for it. */
static napi_value unread_bytes(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  int held = 0;
  if (ioctl(to_int(env, argv[0]), SIOCOUTQ, &held) != 0) return failure(env, errno);
  return number(env, held);
}

/* ---- descriptors ---- */

static napi_value close_fd(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  return outcome(env, close(to_int(env, argv[0])));
}

/* memfd(name, size): a memory file, as long as `size`, sealed against shrinking: QEMU's own are too. */
static napi_value memfd(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  char name[64];
  size_t length;
  if (napi_get_value_string_utf8(env, argv[0], name, sizeof name, &length) != napi_ok) return failure(env, EINVAL);
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return failure(env, errno);
  if (ftruncate(fd, to_int64(env, argv[1])) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0) return number(env, fd);
  int error = errno;
  close(fd);
  return failure(env, error);
}

/* raiseFileLimit(wanted): the soft RLIMIT_NOFILE after raising it as far as the hard limit lets. */
static napi_value raise_file_limit(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  struct rlimit limit;
  rlim_t wanted = (rlim_t)to_int64(env, argv[0]);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return failure(env, errno);
  if (limit.rlim_cur < wanted && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return failure(env, errno);
  }
  return number(env, (double)limit.rlim_cur);
}

/* ---- eventfds ---- */

static napi_value create_eventfd(napi_env env, napi_callback_info info) {
  (void)info;
  return outcome(env, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/*
 * adoptEventfd(fd): 0 when a peer's descriptor is an eventfd, which is made non-blocking; EINVAL when
 * it is anything else. A pipe or a socket in its place could block a write or be readable for ever.
 */
static napi_value adopt_eventfd(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  static const char kind[] = "anon_inode:[eventfd]";
  int fd = to_int(env, argv[0]);
  char link[32], target[sizeof kind];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, target, sizeof target);
  if (length < 0) return failure(env, errno);
  if (length != sizeof kind - 1 || memcmp(target, kind, sizeof kind - 1) != 0) return failure(env, EINVAL);
  return outcome(env, fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
}

/* signalEventfd(fd): add one. A counter that is full already says what a further one would. */
static napi_value signal_eventfd(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  uint64_t one = 1;
  ssize_t result = write(to_int(env, argv[0]), &one, sizeof one);
  return result < 0 && errno == EAGAIN ? number(env, 0) : outcome(env, result);
}

/* readEventfd(fd): the count since the last read, 0 when there was none. */
static napi_value read_eventfd(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  uint64_t count = 0;
  ssize_t result = read(to_int(env, argv[0]), &count, sizeof count);
  if (result < 0 && errno != EAGAIN) return failure(env, errno);
  return number(env, result < 0 ? 0 : (double)count);
}

/* ---- mappings ---- */

/*
 * map(fd, offset, size): a shared, writable ArrayBuffer over the file. ENXIO when the file is shorter:
 * a touch beyond its end would be SIGBUS. A peer that truncates an unsealed file later still can do that.
 */
static napi_value map_file(napi_env env, napi_callback_info info) {
  ARGUMENTS(3);
  instance *self = instance_of(env);
  int fd = to_int(env, argv[0]);
  int64_t offset = to_int64(env, argv[1]), size = to_int64(env, argv[2]), end;
  struct stat status;
  if (self == NULL || offset < 0 || size <= 0 || __builtin_add_overflow(offset, size, &end)) return failure(env, EINVAL);
  if (fstat(fd, &status) != 0) return failure(env, errno);
  if (!S_ISREG(status.st_mode)) return failure(env, ENODEV);
  if (end > status.st_size) return failure(env, ENXIO);
  mapping *made = malloc(sizeof *made);
  if (made == NULL) return failure(env, ENOMEM);
  made->size = (size_t)size;
  made->address = mmap(NULL, made->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  if (made->address == MAP_FAILED) {
    int error = errno;
    free(made);
    return failure(env, error);
  }
  napi_value buffer = NULL;
  /* No finalizer: unmapping is the owner's explicit act, or the environment's end. */
  if (napi_create_external_arraybuffer(env, made->address, made->size, NULL, NULL, &buffer) != napi_ok) {
    napi_value thrown;
    napi_get_and_clear_last_exception(env, &thrown);
    munmap(made->address, made->size);
    free(made);
    return failure(env, ENOMEM);
  }
  made->next = self->mappings;
  self->mappings = made;
  return buffer;
}

/* unmap(buffer): detach it, so that every view has length 0, and only then take the pages away. */
static napi_value unmap_file(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  instance *self = instance_of(env);
  void *address = NULL;
  size_t size = 0;
  if (self == NULL || napi_get_arraybuffer_info(env, argv[0], &address, &size) != napi_ok) return failure(env, EINVAL);
  for (mapping **link = &self->mappings; address != NULL && *link != NULL; link = &(*link)->next) {
    mapping *found = *link;
    if (found->address != address) continue;
    if (napi_detach_arraybuffer(env, argv[0]) != napi_ok) return failure(env, EBUSY);
    *link = found->next;
    munmap(found->address, found->size);
    free(found);
    return number(env, 0);
  }
  return failure(env, EINVAL);
}

/* ---- polling ---- */

static void on_closed(uv_handle_t *handle) {
  poll *self = (poll *)handle;
  instance *owner = self->instance;
  free(self);
  if (--owner->open == 0 && owner->ending) {
    napi_remove_async_cleanup_hook(owner->cleanup);
    free(owner);
  }
}

static void close_poll(poll *self) {
  if (self->previous != NULL) self->previous->next = self->next;
  else self->instance->polls = self->next;
  if (self->next != NULL) self->next->previous = self->previous;
  napi_delete_reference(self->instance->env, self->callback);
  self->callback = NULL;
  uv_close((uv_handle_t *)&self->uv, on_closed);
}

static void on_event(uv_poll_t *handle, int status, int events) {
  poll *self = (poll *)handle;
  napi_env env = self->instance->env;
  double value = status < 0 ? status : events;
  if (self->is_counter && status == 0) {
    uint64_t count = 0;
    ssize_t result = read(self->fd, &count, sizeof count);
    if (result < 0 && (errno == EAGAIN || errno == EINTR)) return;
    value = result == sizeof count ? (double)count : result < 0 ? -errno : -EPROTO;
  }
  if (value < 0) uv_poll_stop(handle); /* else a broken descriptor is readable for ever */
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback = NULL, receiver, argument = number(env, value), thrown;
  napi_get_global(env, &receiver);
  napi_get_reference_value(env, self->callback, &callback);
  if (callback != NULL && argument != NULL) {
    /* make_callback, not call_function: promises and ticks the callback starts must run. */
    napi_status result = napi_make_callback(env, NULL, receiver, callback, 1, &argument, NULL);
    if (result == napi_pending_exception && napi_get_and_clear_last_exception(env, &thrown) == napi_ok) {
      napi_fatal_exception(env, thrown);
    }
  }
  napi_close_handle_scope(env, scope);
}

/* poll(fd, events, isCounter, callback): an id > 0. Keeps the loop alive until unpoll(id). */
static napi_value start_poll(napi_env env, napi_callback_info info) {
  ARGUMENTS(4);
  instance *owner = instance_of(env);
  napi_valuetype type;
  if (owner == NULL || napi_typeof(env, argv[3], &type) != napi_ok || type != napi_function) return failure(env, EINVAL);
  poll *self = calloc(1, sizeof *self);
  if (self == NULL) return failure(env, ENOMEM);
  self->instance = owner;
  self->fd = to_int(env, argv[0]);
  napi_get_value_bool(env, argv[2], &self->is_counter);
  int error = self->fd < 0 ? UV_EBADF : uv_poll_init(owner->loop, &self->uv, self->fd);
  if (error != 0) { /* not initialised: nothing to close */
    free(self);
    return number(env, error);
  }
  owner->open++;
  self->id = ++owner->last_id;
  self->next = owner->polls;
  if (self->next != NULL) self->next->previous = self;
  owner->polls = self;
  napi_create_reference(env, argv[3], 1, &self->callback);
  error = uv_poll_start(&self->uv, to_int(env, argv[1]), on_event);
  if (error != 0) {
    close_poll(self);
    return number(env, error);
  }
  return number(env, self->id);
}

static poll *find_poll(napi_env env, napi_value id) {
  instance *owner = instance_of(env);
  uint32_t wanted = (uint32_t)to_int64(env, id);
  poll *found = owner == NULL ? NULL : owner->polls;
  while (found != NULL && found->id != wanted) found = found->next;
  return found;
}

/* repoll(id, events): wait for these instead. */
static napi_value change_poll(napi_env env, napi_callback_info info) {
  ARGUMENTS(2);
  poll *found = find_poll(env, argv[0]);
  return number(env, found == NULL ? -ENOENT : uv_poll_start(&found->uv, to_int(env, argv[1]), on_event));
}

/* unpoll(id): no callback comes after this; the descriptor may be closed at once. */
static napi_value stop_poll(napi_env env, napi_callback_info info) {
  ARGUMENTS(1);
  poll *found = find_poll(env, argv[0]);
  if (found == NULL) return failure(env, ENOENT);
  close_poll(found);
  return number(env, 0);
}

/* ---- the module ---- */

/* The environment ends (exit, worker.terminate): handles must be closed before its loop is, and the
 * hook is asynchronous because uv_close is. Node has detached or dropped every ArrayBuffer's use by now. */
static void on_end(napi_async_cleanup_hook_handle handle, void *data) {
  instance *self = data;
  self->ending = true;
  self->open++; /* held by this function, so that the last poll cannot free self under it */
  while (self->polls != NULL) close_poll(self->polls);
  while (self->mappings != NULL) {
    mapping *first = self->mappings;
    self->mappings = first->next;
    munmap(first->address, first->size);
    free(first);
  }
  if (--self->open == 0) {
    napi_remove_async_cleanup_hook(handle);
    free(self);
  }
}

NAPI_MODULE_INIT() {
  static const struct { const char *name; napi_callback function; } functions[] = {
    { "unixSocket", unix_socket },        { "accept", accept_socket },
    { "socketPair", socket_pair },        { "send", send_message },
    { "receive", receive_message },       { "unreadBytes", unread_bytes },
    { "close", close_fd },                { "memfd", memfd },
    { "raiseFileLimit", raise_file_limit },
    { "createEventfd", create_eventfd },  { "adoptEventfd", adopt_eventfd },
    { "signalEventfd", signal_eventfd },  { "readEventfd", read_eventfd },
    { "map", map_file },                  { "unmap", unmap_file },
    { "poll", start_poll },               { "repoll", change_poll },
    { "unpoll", stop_poll },
  };
  instance *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  self->env = env;
  if (napi_get_uv_event_loop(env, &self->loop) != napi_ok || napi_set_instance_data(env, self, NULL, NULL) != napi_ok ||
      napi_add_async_cleanup_hook(env, on_end, self, &self->cleanup) != napi_ok) {
    free(self);
    return NULL;
  }
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    napi_value function;
    napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL, &function);
    napi_set_named_property(env, exports, functions[i].name, function);
  }
  napi_set_named_property(env, exports, "version", number(env, VERSION));
  return exports;
}
