/* The page cache, made to lose: an LD_PRELOAD library that keeps what a power cut would undo.
 *
 * For every file below PAGECACHE_ROOT it records, in a shared mapping that survives SIGKILL, the old bytes of each write,
 * truncation, creation, rename and removal, and which of them a completed fsync has settled. `undo.rs` reads the
 * records after the kill and rolls back a seeded part of what was never settled.
 *
 * PAGECACHE_ROOT     directory to watch (canonical path)
 * PAGECACHE_JOURNAL  file for the records; "<journal>.d" keeps hard links of removed files
 * PAGECACHE_LIE      if set, fsync and fdatasync of files whose path ends with it (all, if it is empty) return 0 and settle
 *                    nothing: the run must then lose data
 *
 * Not covered: mmap'ed writes and copy_file_range (the log store uses neither).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, RESIZE = 2, SYNC = 3, CREATE = 4, RENAME = 5, UNLINK = 6, LIED = 7 };
#define CAPACITY (8ull << 30)
#define HEADER 4096
#define FDS 65536

struct record { /* 48 bytes, then `payload` bytes, padded to 8 */
    uint32_t kind, payload;
    uint64_t ino;      /* the file; for CREATE, RENAME, UNLINK its directory */
    uint64_t offset;   /* WRITE: where. SYNC: journal offset up to which it settles */
    uint64_t length;   /* WRITE: bytes written. RESIZE: new size */
    uint64_t old_size; /* WRITE, RESIZE: size before. CREATE: inode created */
    uint64_t done;     /* set last: the record is whole */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], backups[PATH_MAX];
static size_t root_len;
static dev_t root_dev;
static uint8_t *map;
static volatile uint64_t *tail;
static uint64_t inode_of[FDS]; /* 0: not watched */
static uint64_t backup_count;
static const char *lie;

static void die(const char *why) {
    dprintf(2, "pagecache shim: %s: %s\n", why, strerror(errno));
    abort();
}

__attribute__((constructor)) static void start(void) {
    const char *r = getenv("PAGECACHE_ROOT"), *j = getenv("PAGECACHE_JOURNAL");
    if (!r || !j) return;
    snprintf(root, sizeof root, "%s", r);
    root_len = strlen(root);
    struct stat s;
    if (stat(root, &s)) die("cannot look at the root");
    root_dev = s.st_dev;
    snprintf(backups, sizeof backups, "%s.d", j);
    mkdir(backups, 0700);
    lie = getenv("PAGECACHE_LIE");
    int fd = syscall(SYS_openat, AT_FDCWD, j, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) die("cannot create the journal");
    if (syscall(SYS_ftruncate, fd, CAPACITY)) die("cannot size the journal");
    map = mmap(NULL, CAPACITY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED) die("cannot map the journal");
    syscall(SYS_close, fd);
    tail = (volatile uint64_t *)map;
    *tail = HEADER;
}

static struct record *begin(uint32_t kind, uint64_t ino, uint64_t payload) {
    uint64_t size = (sizeof(struct record) + payload + 7) & ~7ull;
    if (*tail + size > CAPACITY) die("the journal is full");
    struct record *r = (struct record *)(map + *tail);
    *r = (struct record){.kind = kind, .payload = (uint32_t)payload, .ino = ino};
    *tail += size;
    return r;
}

static void put_pair(uint32_t kind, uint64_t dir, uint64_t extra, const char *a, const char *b, const char *c) {
    size_t la = strlen(a) + 1, lb = strlen(b) + 1, lc = strlen(c) + 1;
    struct record *r = begin(kind, dir, la + lb + lc);
    char *p = (char *)(r + 1);
    memcpy(p, a, la), memcpy(p + la, b, lb), memcpy(p + la + lb, c, lc);
    r->old_size = extra;
    r->done = 1;
}

static int absolute(int dir, const char *path, char *out) { /* 0: below the root */
    if (!map) return -1;
    char joined[PATH_MAX * 2], parent[PATH_MAX * 2];
    if (path[0] == '/') snprintf(joined, sizeof joined, "%s", path);
    else if (dir == AT_FDCWD) {
        char cwd[PATH_MAX];
        if (!getcwd(cwd, sizeof cwd)) return -1;
        snprintf(joined, sizeof joined, "%s/%s", cwd, path);
    } else return -1;
    snprintf(parent, sizeof parent, "%s", joined);
    char *slash = strrchr(parent, '/');
    if (!slash) return -1;
    char name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%s", slash + 1);
    *slash = 0;
    char resolved[PATH_MAX];
    if (!realpath(parent[0] ? parent : "/", resolved)) return -1;
    if (snprintf(out, PATH_MAX, "%s/%s", resolved, name) >= PATH_MAX) return -1;
    return strncmp(out, root, root_len) || (out[root_len] && out[root_len] != '/') ? -1 : 0; /* the root itself, too */
}

static uint64_t parent_inode(const char *path) {
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    *strrchr(dir, '/') = 0;
    struct stat s;
    return stat(dir, &s) ? 0 : s.st_ino;
}

/* Keeps a removed or overwritten file alive; its name, or "" if there was none. */
static void keep(const char *path, char *name) {
    name[0] = 0;
    struct stat s;
    if (lstat(path, &s) || !S_ISREG(s.st_mode)) return;
    char to[PATH_MAX + 32];
    snprintf(name, 32, "%llu", (unsigned long long)++backup_count);
    snprintf(to, sizeof to, "%s/%s", backups, name);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, to, 0)) die("cannot keep a removed file");
}

static void resized(int fd, uint64_t ino, uint64_t before, uint64_t after) {
    uint64_t lost = before > after ? before - after : 0;
    struct record *r = begin(RESIZE, ino, lost);
    if (lost && pread(fd, r + 1, lost, after) != (ssize_t)lost) die("cannot read what is cut off");
    r->length = after, r->old_size = before, r->done = 1;
}

static int opened(int dir, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!map || (flags & O_TMPFILE) == O_TMPFILE || absolute(dir, path, full))
        return syscall(SYS_openat, dir, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before, now;
    int existed = !stat(full, &before);
    if (existed && (flags & O_TRUNC) && S_ISREG(before.st_mode)) {
        int old = syscall(SYS_openat, AT_FDCWD, full, O_RDONLY | O_CLOEXEC, 0);
        if (old >= 0) resized(old, before.st_ino, before.st_size, 0), syscall(SYS_close, old);
    }
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    int failed = errno;
    if (fd >= 0 && fd < FDS && !fstat(fd, &now)) {
        inode_of[fd] = now.st_ino;
        if (!existed) put_pair(CREATE, parent_inode(full), now.st_ino, full, "", "");
    }
    pthread_mutex_unlock(&lock);
    errno = failed;
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, mode_t); va_end(v); } \
        return opened(AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, mode_t); va_end(v); } \
        return opened(dir, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    if (fd >= 0 && fd < FDS) inode_of[fd] = 0;
    return syscall(SYS_close, fd);
}

/* A descriptor that stdio closed behind our back may be a socket by now: its number alone proves nothing. */
static int watched(int fd) {
    struct stat s;
    if (!map || fd < 0 || fd >= FDS || !inode_of[fd]) return 0;
    if (!fstat(fd, &s) && s.st_dev == root_dev && s.st_ino == inode_of[fd]) return 1;
    inode_of[fd] = 0;
    return 0;
}

static void writing(int fd, uint64_t offset, uint64_t length) { /* under the lock, before the write */
    struct stat s;
    if (fstat(fd, &s)) die("fstat");
    uint64_t size = s.st_size, end = offset + length < size ? offset + length : size;
    uint64_t old = offset < end ? end - offset : 0;
    struct record *r = begin(WRITE, inode_of[fd], old);
    if (old) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* the descriptor itself may be write-only */
        int in = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
        if (in < 0 || pread(in, r + 1, old, offset) != (ssize_t)old) die("cannot read what is overwritten");
        syscall(SYS_close, in);
    }
    r->offset = offset, r->length = length, r->old_size = size, r->done = 1;
}

static uint64_t position(int fd) {
    int flags = fcntl(fd, F_GETFL);
    struct stat s;
    if (flags & O_APPEND) return fstat(fd, &s) ? 0 : (uint64_t)s.st_size;
    off_t at = lseek(fd, 0, SEEK_CUR);
    return at < 0 ? 0 : (uint64_t)at;
}

ssize_t write(int fd, const void *data, size_t n) {
    if (!watched(fd)) return syscall(SYS_write, fd, data, n);
    pthread_mutex_lock(&lock);
    writing(fd, position(fd), n);
    ssize_t did = syscall(SYS_write, fd, data, n);
    int failed = errno;
    pthread_mutex_unlock(&lock);
    errno = failed;
    return did;
}

static ssize_t at_offset(int fd, const void *data, size_t n, off_t offset) {
    if (!watched(fd)) return syscall(SYS_pwrite64, fd, data, n, offset);
    pthread_mutex_lock(&lock);
    writing(fd, offset, n);
    ssize_t did = syscall(SYS_pwrite64, fd, data, n, offset);
    int failed = errno;
    pthread_mutex_unlock(&lock);
    errno = failed;
    return did;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) { return at_offset(fd, data, n, offset); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset) { return at_offset(fd, data, n, offset); }

ssize_t writev(int fd, const struct iovec *v, int count) {
    if (!watched(fd)) return syscall(SYS_writev, fd, v, count);
    size_t n = 0;
    for (int i = 0; i < count; i++) n += v[i].iov_len;
    pthread_mutex_lock(&lock);
    writing(fd, position(fd), n);
    ssize_t did = syscall(SYS_writev, fd, v, count);
    int failed = errno;
    pthread_mutex_unlock(&lock);
    errno = failed;
    return did;
}

static int lying(int fd) {
    if (!lie) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path), m = strlen(lie);
    return n >= m && !memcmp(path + n - m, lie, m);
}

static int settled(int fd, long call) {
    if (!watched(fd)) return syscall(call, fd);
    if (lying(fd)) {
        pthread_mutex_lock(&lock);
        begin(LIED, inode_of[fd], 0)->done = 1;
        pthread_mutex_unlock(&lock);
        return 0;
    }
    pthread_mutex_lock(&lock);
    uint64_t upto = *tail, ino = inode_of[fd];
    pthread_mutex_unlock(&lock);
    int result = syscall(call, fd);
    int failed = errno;
    if (!result) {
        pthread_mutex_lock(&lock);
        struct record *r = begin(SYNC, ino, 0);
        r->offset = upto, r->done = 1;
        pthread_mutex_unlock(&lock);
    }
    errno = failed;
    return result;
}
int fsync(int fd) { return settled(fd, SYS_fsync); }
int fdatasync(int fd) { return settled(fd, SYS_fdatasync); }

static int cut(int fd, off_t size) {
    if (!watched(fd)) return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    struct stat s;
    if (!fstat(fd, &s)) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int in = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
        resized(in, inode_of[fd], s.st_size, size);
        syscall(SYS_close, in);
    }
    int result = syscall(SYS_ftruncate, fd, size);
    int failed = errno;
    pthread_mutex_unlock(&lock);
    errno = failed;
    return result;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off_t size) { return cut(fd, size); }

static int reserve(int fd, int mode, off_t offset, off_t length) {
    if (watched(fd) && !(mode & FALLOC_FL_KEEP_SIZE)) {
        struct stat s;
        pthread_mutex_lock(&lock);
        if (!fstat(fd, &s) && s.st_size < offset + length) resized(fd, inode_of[fd], s.st_size, offset + length);
        pthread_mutex_unlock(&lock);
    }
    return syscall(SYS_fallocate, fd, mode, offset, length);
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return reserve(fd, mode, offset, length); }
int fallocate64(int fd, int mode, off_t offset, off_t length) { return reserve(fd, mode, offset, length); }

static int moved(const char *from, const char *to) {
    char a[PATH_MAX], b[PATH_MAX], kept[32];
    if (absolute(AT_FDCWD, from, a) || absolute(AT_FDCWD, to, b)) return syscall(SYS_rename, from, to);
    pthread_mutex_lock(&lock);
    keep(b, kept);
    int result = syscall(SYS_rename, from, to);
    int failed = errno;
    if (!result) put_pair(RENAME, parent_inode(b), 0, a, b, kept);
    pthread_mutex_unlock(&lock);
    errno = failed;
    return result;
}
int rename(const char *from, const char *to) { return moved(from, to); }

static int removed(const char *path) {
    char full[PATH_MAX], kept[32];
    if (absolute(AT_FDCWD, path, full)) return syscall(SYS_unlink, path);
    pthread_mutex_lock(&lock);
    keep(full, kept);
    int result = syscall(SYS_unlink, path);
    int failed = errno;
    if (!result && kept[0]) put_pair(UNLINK, parent_inode(full), 0, full, "", kept);
    pthread_mutex_unlock(&lock);
    errno = failed;
    return result;
}
int unlink(const char *path) { return removed(path); }
