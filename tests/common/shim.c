/* Loaded before libc. A page that the test writes (shim.rs) decides what becomes of some calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct page {
    volatile int64_t ahead; /* seconds by which the wall clock is ahead */
    volatile int64_t error; /* errno of one of three requests to rtnetlink; 0: they are executed */
    volatile int64_t delay; /* microseconds until a reply of rtnetlink is there */
    volatile int64_t most;  /* octets of a write to a file; 0: all */
    _Atomic int64_t hits;   /* calls that were changed */
};

/* A bit that no type of a request has: the kernel refuses it (EOPNOTSUPP). */
enum { SPOILED = 0x4000 };

static struct page nothing, *page = &nothing;
static _Atomic unsigned requests;

#define REAL(name)                                                                                 \
    static __typeof__(name) *real;                                                                 \
    if (!real)                                                                                     \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void open_page(void) {
    const char *name = getenv("TEST_SHIM");
    int file = name ? open(name, O_RDWR) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED)
        page = shared;
}

static int option(int fd, int name) {
    int value = -1, before = errno;
    socklen_t size = sizeof value;
    if (getsockopt(fd, SOL_SOCKET, name, &value, &size) != 0)
        value = -1;
    errno = before;
    return value;
}

static int is_route(int fd) {
    return option(fd, SO_DOMAIN) == AF_NETLINK && option(fd, SO_PROTOCOL) == NETLINK_ROUTE;
}

static int is_file(int fd) {
    struct stat found;
    int before = errno, is = fd > 2 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
    errno = before;
    return is;
}

static size_t cut(size_t len) {
    size_t most = (size_t)page->most;
    if (most == 0 || len <= most)
        return len;
    atomic_fetch_add(&page->hits, 1);
    return most;
}

/* A copy in which one of three requests is spoiled. */
static void *spoil(const void *requested, size_t len) {
    char *copy = malloc(len);
    if (!copy)
        return NULL;
    memcpy(copy, requested, len);
    for (size_t at = 0; at + sizeof(struct nlmsghdr) <= len;) {
        struct nlmsghdr *head = (struct nlmsghdr *)(copy + at);
        if (head->nlmsg_len < sizeof *head)
            break;
        if (head->nlmsg_type >= NLMSG_MIN_TYPE && atomic_fetch_add(&requests, 1) % 3 == 0) {
            head->nlmsg_type |= SPOILED;
            atomic_fetch_add(&page->hits, 1);
        }
        at += NLMSG_ALIGN(head->nlmsg_len);
    }
    return copy;
}

/* Refusals of spoiled requests get the wanted error. */
static void refuse(void *reply, ssize_t len) {
    const ssize_t least = NLMSG_HDRLEN + sizeof(struct nlmsgerr);
    for (ssize_t at = 0; at + least <= len;) {
        struct nlmsghdr *head = (struct nlmsghdr *)((char *)reply + at);
        struct nlmsgerr *error = NLMSG_DATA(head);
        if (head->nlmsg_len < sizeof *head)
            return;
        if (head->nlmsg_type == NLMSG_ERROR && error->msg.nlmsg_type & SPOILED) {
            error->msg.nlmsg_type &= (uint16_t)~SPOILED;
            error->error = page->error ? -(int)page->error : -EBUSY;
        }
        at += NLMSG_ALIGN(head->nlmsg_len);
    }
}

/* Whether replies are delayed, or some of them may belong to spoiled requests. */
static int may_be_changed(void) {
    return page->delay || atomic_load(&requests);
}

static void wait_for_reply(int fd, int flags) {
    int64_t delay = page->delay;
    int before = errno;
    if (delay && !(flags & MSG_DONTWAIT) && !(fcntl(fd, F_GETFL) & O_NONBLOCK)) {
        atomic_fetch_add(&page->hits, 1);
        usleep((useconds_t)delay);
    }
    errno = before;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int done = real(clock, now);
    if (done == 0 && clock == CLOCK_REALTIME && page->ahead) {
        atomic_fetch_add(&page->hits, 1);
        now->tv_sec += page->ahead;
    }
    return done;
}

ssize_t send(int fd, const void *octets, size_t len, int flags) {
    REAL(send);
    void *copy = page->error && is_route(fd) ? spoil(octets, len) : NULL;
    ssize_t sent = real(fd, copy ? copy : octets, len, flags);
    int before = errno;
    free(copy);
    errno = before;
    return sent;
}

ssize_t sendto(int fd, const void *octets, size_t len, int flags, const struct sockaddr *to, socklen_t size) {
    REAL(sendto);
    void *copy = page->error && is_route(fd) ? spoil(octets, len) : NULL;
    ssize_t sent = real(fd, copy ? copy : octets, len, flags, to, size);
    int before = errno;
    free(copy);
    errno = before;
    return sent;
}

ssize_t recv(int fd, void *octets, size_t len, int flags) {
    REAL(recv);
    if (!may_be_changed() || !is_route(fd))
        return real(fd, octets, len, flags);
    wait_for_reply(fd, flags);
    ssize_t received = real(fd, octets, len, flags);
    refuse(octets, received);
    return received;
}

ssize_t recvfrom(int fd, void *octets, size_t len, int flags, struct sockaddr *from, socklen_t *size) {
    REAL(recvfrom);
    if (!may_be_changed() || !is_route(fd))
        return real(fd, octets, len, flags, from, size);
    wait_for_reply(fd, flags);
    ssize_t received = real(fd, octets, len, flags, from, size);
    refuse(octets, received);
    return received;
}

ssize_t write(int fd, const void *octets, size_t len) {
    REAL(write);
    return real(fd, octets, page->most && is_file(fd) ? cut(len) : len);
}
