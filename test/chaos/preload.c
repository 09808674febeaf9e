/*
 * Loaded before everything else into a daemon under chaos (LD_PRELOAD): its wall clock jumps, its disk syncs slowly or fails once, as a file says
 * that the test maps too. The monotonic clock stays true.
 *
 *     0 clockOffsetMs i64 | 8 syncDelayMs i64 | 16 fault i64: 1 = the next sync of such a file fails with EIO, 2 = the next write
 *     24 failed i64: faults that came to pass | 32 after i64: syncs afterwards, of that file or of any other
 *     after a while, as threads do not hear of it at once
 *     40 pattern, 88 bytes with a 0 at the end: the files that fail, as of fnmatch(3)
 *
 * Sees what libc is asked for: all syncs, and the writes of SQLite; not the writes of Bun itself, which asks the kernel.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { sync_fails = 1, write_fails = 2 };

static struct stat failed_file;
static struct timespec failed_at;
static const int64_t hear_ms = 100;

struct control {
  volatile int64_t clock_offset_ms, sync_delay_ms, fault, failed, after;
  char pattern[88];
};
static struct control nothing;
static struct control *control = &nothing;

__attribute__((constructor)) static void map(void) {
  const char *path = getenv("CHAOS_CONTROL");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void *mapped = mmap(0, sizeof nothing, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped != MAP_FAILED) control = mapped;
  close(fd);
}

static int64_t offset_ms(void) { return control->clock_offset_ms; }

static void wait_for_disk(void) {
  int64_t ms = control->sync_delay_ms;
  if (ms > 0) nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, 0);
}

static int is_too_late(int fd) {
  struct timespec now;
  struct stat file;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t ms = (now.tv_sec - failed_at.tv_sec) * 1000 + (now.tv_nsec - failed_at.tv_nsec) / 1000000;
  return ms > hear_ms || (fstat(fd, &file) == 0 && file.st_ino == failed_file.st_ino && file.st_dev == failed_file.st_dev);
}

/* Whether this very call is to fail; counts the syncs that come too late after one that did. */
static int fails(int fault, int fd) {
  if (fault == sync_fails && failed_at.tv_sec != 0 && is_too_late(fd)) __atomic_add_fetch(&control->after, 1, __ATOMIC_SEQ_CST);
  if (control->fault != fault) return 0;
  char link[32], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  if (fnmatch(control->pattern, path, 0) != 0) return 0;
  int64_t expected = fault;
  if (!__atomic_compare_exchange_n(&control->fault, &expected, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return 0;
  fstat(fd, &failed_file);
  clock_gettime(CLOCK_MONOTONIC, &failed_at);
  __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
  errno = EIO;
  return 1;
}

int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(id, now);
  if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
    int64_t ns = now->tv_nsec + offset_ms() % 1000 * 1000000;
    int64_t carry = ns < 0 ? -1 : ns / 1000000000;
    now->tv_sec += offset_ms() / 1000 + carry;
    now->tv_nsec = ns - carry * 1000000000;
  }
  return status;
}

int gettimeofday(struct timeval *now, void *zone) {
  (void)zone;
  struct timespec exact;
  int status = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return status;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  wait_for_disk();
  return fails(sync_fails, fd) ? -1 : real(fd);
}

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  wait_for_disk();
  return fails(sync_fails, fd) ? -1 : real(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  return fails(write_fails, fd) ? -1 : real(fd, bytes, count, offset);
}
