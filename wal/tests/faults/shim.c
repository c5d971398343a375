/* A disk that fails or is slow: an LD_PRELOAD library that lets chosen calls on chosen files fail, or take their time.
 *
 * FAULT_PLAN    file that says what fails, looked at before each call; none there: nothing does.
 *               "KIND ERRNO SKIP COUNT FILES ...": of the calls of KIND on files whose path is like FILES (fnmatch; '*'
 *               matches slashes, too) the first SKIP pass, then COUNT fail (0: all, for ever). Another text begins to
 *               count anew; what follows FILES is there to make texts differ.
 *               KIND: write; torn (a write, half done, then writes that fail); sync (fsync, fdatasync);
 *               create (a new file or name); any (all of these); slow (each sync takes ERRNO milliseconds, or until the
 *               text is another)
 * FAULT_TRACE   file that gets a line for each call on such a file while there was a plan: "fail sync PATH", "pass ..."
 *
 * Not covered: mmap'ed writes, copy_file_range, and what the C library does within itself (stdio).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *plan, *trace;

__attribute__((constructor)) static void start(void) {
    plan = getenv("FAULT_PLAN"), trace = getenv("FAULT_TRACE");
    if (!trace) plan = NULL;
}

enum verdict { PASS, HALF, FAIL, SLOW };

static void note(const char *what, const char *kind, const char *path) {
    char line[PATH_MAX + 32];
    int n = snprintf(line, sizeof line, "%s %s %s\n", what, kind, path);
    int fd = syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0 && syscall(SYS_write, fd, line, n) != n) abort();
    syscall(SYS_close, fd);
}

/* Under the lock. A failure leaves the error in `failed`. */
static enum verdict by_plan(const char *text, const char *kind, const char *path, int *failed) {
    static char seen[512];
    static unsigned long calls;
    char of[16], like[256];
    unsigned long skip, count;
    if (strcmp(seen, text)) strcpy(seen, text), calls = 0;
    if (sscanf(text, "%15s %d %lu %lu %255s", of, failed, &skip, &count, like) != 5) abort();
    if (fnmatch(like, path, 0)) return PASS;
    int torn = !strcmp(of, "torn");
    enum verdict verdict = PASS;
    if (!strcmp(of, "slow") && !strcmp(kind, "sync")) return SLOW;
    if (!strcmp(of, kind) || !strcmp(of, "any") || (torn && !strcmp(kind, "write"))) {
        calls++;
        if (calls > skip && (!count || calls <= skip + count + torn)) verdict = torn && calls == skip + 1 ? HALF : FAIL;
    }
    note(verdict == FAIL ? "fail" : verdict == HALF ? "half" : "pass", kind, path);
    return verdict;
}

static int planned(char *text, size_t size) { /* 0: nothing */
    int fd = syscall(SYS_openat, AT_FDCWD, plan, O_RDONLY | O_CLOEXEC, 0);
    ssize_t n = fd < 0 ? -1 : syscall(SYS_read, fd, text, size - 1);
    if (fd >= 0) syscall(SYS_close, fd);
    if (n > 0) text[n] = 0;
    return n > 0;
}

static void take_time(const char *under, int ms) {
    char text[512];
    struct timespec step = {0, 5000000};
    for (; ms > 0 && planned(text, sizeof text) && !strcmp(text, under); ms -= 5) nanosleep(&step, NULL);
}

static enum verdict judge(const char *kind, const char *path) {
    char text[512];
    int was = errno, failed = 0;
    enum verdict verdict = PASS;
    if (!plan) return PASS;
    pthread_mutex_lock(&lock);
    if (planned(text, sizeof text)) verdict = by_plan(text, kind, path, &failed);
    pthread_mutex_unlock(&lock);
    if (verdict == SLOW) take_time(text, failed), verdict = PASS;
    errno = verdict == FAIL ? failed : was;
    return verdict;
}

static enum verdict judge_fd(const char *kind, int fd) {
    char link[64], path[PATH_MAX];
    int was = errno;
    if (!plan || access(plan, F_OK)) return errno = was, PASS;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = was;
    if (n <= 0) return PASS;
    path[n] = 0;
    return judge(kind, path);
}

ssize_t write(int fd, const void *data, size_t n) {
    enum verdict v = judge_fd("write", fd);
    return v == FAIL ? -1 : syscall(SYS_write, fd, data, v == HALF ? n / 2 : n);
}

static ssize_t at_offset(int fd, const void *data, size_t n, off_t offset) {
    enum verdict v = judge_fd("write", fd);
    return v == FAIL ? -1 : syscall(SYS_pwrite64, fd, data, v == HALF ? n / 2 : n, offset);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) { return at_offset(fd, data, n, offset); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset) { return at_offset(fd, data, n, offset); }

ssize_t writev(int fd, const struct iovec *v, int count) {
    return judge_fd("write", fd) == FAIL ? -1 : syscall(SYS_writev, fd, v, count);
}

int fsync(int fd) { return judge_fd("sync", fd) == FAIL ? -1 : syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return judge_fd("sync", fd) == FAIL ? -1 : syscall(SYS_fdatasync, fd); }

static int opened(int dir, const char *path, int flags, mode_t mode) {
    int creates = (flags & O_CREAT) && faccessat(dir, path, F_OK, 0);
    if (creates && judge("create", path) == FAIL) return -1;
    return syscall(SYS_openat, dir, path, flags, mode);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, mode_t); va_end(v); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return opened(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return opened(dir, path, flags, mode); }

int rename(const char *from, const char *to) {
    return judge("create", to) == FAIL ? -1 : syscall(SYS_rename, from, to);
}
int mkdir(const char *path, mode_t mode) {
    int creates = faccessat(AT_FDCWD, path, F_OK, 0);
    return creates && judge("create", path) == FAIL ? -1 : syscall(SYS_mkdir, path, mode);
}
