/* Load generator and sink for `make bench`. One thread, epoll; prints one JSON object per run.
 *
 *   load serve PORT FIRST                                TCP server for the modes below
 *   load connect ADDR PORT FIRST COUNT PARALLEL        short connections: connect, first bytes, 1 reply, close
 *   load stream ADDR PORT FIRST SECONDS STREAMS up|down
 *   load pingpong ADDR PORT FIRST COUNT                1-byte request and reply on one open connection
 *   load hold ADDR PORT FIRST COUNT                    opens COUNT flows and holds them until a line comes in on stdin;
 *                                                      then prints how many died, and when the last did (monotonic)
 *   load udp ADDR PORT COUNT                           64-byte datagrams, ns per packet on this CPU
 *   load udpsink PORT
 *
 * FIRST names a file with the first bytes a client says (a ClientHello). One command byte follows them and tells
 * the server what to do: R reply once, U swallow, D send for ever, P echo. Every run is bounded in count or time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FD_MAX = 1 << 17, EVENTS = 512, BUFFER = 1 << 18, STALL_MS = 3000 };
static char buffer[BUFFER];
static char first[8192];
static int first_length;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int poller, int op, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, op, fd, &event)) die("epoll_ctl");
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static struct sockaddr_in6 address_of(const char *host, int port) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    char mapped[64];
    snprintf(mapped, sizeof mapped, strchr(host, ':') ? "%s" : "::ffff:%s", host);
    if (inet_pton(AF_INET6, mapped, &a.sin6_addr) != 1) die(host);
    return a;
}

static void read_first(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    first_length = fread(first, 1, sizeof first - 1, file);
    fclose(file);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- server ---- */
struct peer {
    char mode;
    int waiting; /* bytes of the first message still to come; -1: not known yet */
};
static struct peer peers[FD_MAX];

static void server_read(int poller, int fd) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        close(fd);
        return;
    }
    if (n < 0) return;
    struct peer *peer = &peers[fd];
    if (peer->waiting > 0) {
        peer->waiting -= n;
        if (peer->waiting > 0) return;
        peer->waiting = 0;
        peer->mode = buffer[n - 1];
        if (peer->mode == 'D') watch(poller, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
        if (peer->mode == 'R' || peer->mode == 'P') send(fd, "x", 1, MSG_NOSIGNAL);
    } else if (peer->mode == 'P') {
        send(fd, buffer, n, MSG_NOSIGNAL);
    }
}

__attribute__((noreturn)) static void serve(int port) {
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, off = 0, poller = epoll_create1(0);
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 16384)) die("listen");
    watch(poller, EPOLL_CTL_ADD, listener, EPOLLIN);
    printf("serving\n");
    fflush(stdout);
    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                for (int k = 0; k < 64; k++) {
                    int c = accept4(listener, 0, 0, SOCK_NONBLOCK);
                    if (c < 0) break;
                    if (c >= FD_MAX) {
                        close(c);
                        continue;
                    }
                    no_delay(c);
                    peers[c] = (struct peer){0, first_length + 1};
                    watch(poller, EPOLL_CTL_ADD, c, EPOLLIN);
                }
                continue;
            }
            if (events[i].events & EPOLLOUT && peers[fd].mode == 'D')
                if (send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) < 0 && errno != EAGAIN) {
                    close(fd);
                    continue;
                }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) server_read(poller, fd);
        }
    }
}

/* ---- short connections ---- */
struct attempt {
    double started, connected;
};
static struct attempt attempts[FD_MAX];

static int short_connections(const char *host, int port, long count, int parallel) {
    struct sockaddr_in6 a = address_of(host, port);
    double *connect_s = malloc(count * sizeof(double)), *first_byte_s = malloc(count * sizeof(double));
    long done = 0, begun = 0, failed = 0, good = 0;
    int active = 0, poller = epoll_create1(0);
    struct epoll_event events[EVENTS];
    first[first_length] = 'R';
    double begin = now_s();
    while (done < count) {
        while (active < parallel && begun < count) {
            int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
            if (fd < 0) die("socket");
            no_delay(fd);
            attempts[fd] = (struct attempt){now_s(), 0};
            begun++;
            if (connect(fd, (void *)&a, sizeof a) && errno != EINPROGRESS) {
                failed++, done++;
                close(fd);
                continue;
            }
            watch(poller, EPOLL_CTL_ADD, fd, EPOLLOUT);
            active++;
        }
        int n = epoll_wait(poller, events, EVENTS, STALL_MS);
        if (n <= 0) {
            failed += active;
            break;
        }
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            struct attempt *attempt = &attempts[fd];
            if (!attempt->connected) {
                int error = 0;
                socklen_t length = sizeof error;
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
                if (!error) {
                    attempt->connected = now_s();
                    send(fd, first, first_length + 1, MSG_NOSIGNAL);
                    watch(poller, EPOLL_CTL_MOD, fd, EPOLLIN);
                    continue;
                }
                failed++;
            } else {
                char byte[64];
                if (recv(fd, byte, sizeof byte, 0) > 0) {
                    connect_s[good] = attempt->connected - attempt->started;
                    first_byte_s[good++] = now_s() - attempt->started;
                } else {
                    failed++;
                }
            }
            close(fd);
            done++, active--;
        }
    }
    double took = now_s() - begin;
    qsort(connect_s, good, sizeof(double), ascending);
    qsort(first_byte_s, good, sizeof(double), ascending);
    printf("{\"good\":%ld,\"failed\":%ld,\"per_s\":%.1f,\"connect_p50_us\":%.1f,\"first_byte_p50_us\":%.1f,"
           "\"first_byte_p99_us\":%.1f}\n",
           good, failed, good / took, good ? connect_s[good / 2] * 1e6 : 0, good ? first_byte_s[good / 2] * 1e6 : 0,
           good ? first_byte_s[good * 99 / 100] * 1e6 : 0);
    return good ? 0 : 1;
}

static int open_flow(const char *host, int port, char mode) {
    struct sockaddr_in6 a = address_of(host, port);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    no_delay(fd);
    if (connect(fd, (void *)&a, sizeof a)) die("connect");
    first[first_length] = mode;
    if (send(fd, first, first_length + 1, MSG_NOSIGNAL) < 0) die("send");
    return fd;
}

static int streams(const char *host, int port, double seconds, int count, int up) {
    int poller = epoll_create1(0);
    struct epoll_event events[EVENTS];
    for (int i = 0; i < count; i++) {
        int fd = open_flow(host, port, up ? 'U' : 'D');
        fcntl(fd, F_SETFL, O_NONBLOCK);
        watch(poller, EPOLL_CTL_ADD, fd, up ? EPOLLOUT : EPOLLIN);
    }
    usleep(200000);
    long total = 0;
    double begin = now_s(), t;
    while ((t = now_s()) - begin < seconds) {
        int n = epoll_wait(poller, events, EVENTS, 100);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            ssize_t moved = up ? send(fd, buffer, 1 << 17, MSG_NOSIGNAL) : recv(fd, buffer, sizeof buffer, 0);
            if (moved > 0)
                total += moved;
            else if (moved == 0 || errno != EAGAIN)
                die("a stream died");
        }
    }
    printf("{\"gbit_per_s\":%.3f}\n", total * 8 / (t - begin) / 1e9);
    return 0;
}

static int pingpong(const char *host, int port, long count) {
    int fd = open_flow(host, port, 'P');
    double *round_s = malloc(count * sizeof(double));
    char byte[64];
    if (recv(fd, byte, sizeof byte, 0) <= 0) die("first reply");
    for (long i = 0; i < count; i++) {
        double begin = now_s();
        if (send(fd, "x", 1, MSG_NOSIGNAL) < 0 || recv(fd, byte, sizeof byte, 0) <= 0) die("pingpong");
        round_s[i] = now_s() - begin;
    }
    qsort(round_s, count, sizeof(double), ascending);
    printf("{\"round_p50_us\":%.1f,\"round_p99_us\":%.1f}\n", round_s[count / 2] * 1e6, round_s[count * 99 / 100] * 1e6);
    return 0;
}

static int hold(const char *host, int port, long count) {
    int poller = epoll_create1(0);
    struct epoll_event events[EVENTS];
    char byte[64];
    long dead = 0;
    double last = 0;
    for (long i = 0; i < count; i++) {
        int fd = open_flow(host, port, 'R');
        if (recv(fd, byte, sizeof byte, 0) <= 0) die("hold: no reply");
        watch(poller, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP);
    }
    printf("{\"held\":%ld}\n", count);
    fflush(stdout);
    watch(poller, EPOLL_CTL_ADD, 0, EPOLLIN);
    for (;;) {
        int n = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == 0) {
                printf("{\"dead\":%ld,\"last_dead_s\":%.6f}\n", dead, last);
                return 0;
            }
            close(events[i].data.fd);
            dead++;
            last = now_s();
        }
    }
}

static int datagrams(const char *host, int port, long count) {
    struct sockaddr_in6 a = address_of(host, port);
    struct mmsghdr messages[64] = {0};
    struct iovec vector = {buffer, 64};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    if (connect(fd, (void *)&a, sizeof a)) die("connect");
    for (int i = 0; i < 64; i++) messages[i].msg_hdr.msg_iov = &vector, messages[i].msg_hdr.msg_iovlen = 1;
    double begin = now_s();
    for (long i = 0; i < count; i += 64) sendmmsg(fd, messages, 64, 0);
    printf("{\"ns_per_packet\":%.1f}\n", (now_s() - begin) / count * 1e9);
    return 0;
}

static int datagram_sink(int port) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (bind(fd, (void *)&a, sizeof a)) die("bind");
    printf("serving\n");
    fflush(stdout);
    return pause();
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "serve") && argc == 4) {
        read_first(argv[3]);
        serve(atoi(argv[2]));
    }
    if (!strcmp(mode, "udpsink") && argc == 3) return datagram_sink(atoi(argv[2]));
    if (!strcmp(mode, "udp") && argc == 5) return datagrams(argv[2], atoi(argv[3]), atol(argv[4]));
    if (argc >= 6) {
        read_first(argv[4]);
        if (!strcmp(mode, "connect") && argc == 7)
            return short_connections(argv[2], atoi(argv[3]), atol(argv[5]), atoi(argv[6]));
        if (!strcmp(mode, "stream") && argc == 8)
            return streams(argv[2], atoi(argv[3]), atof(argv[5]), atoi(argv[6]), !strcmp(argv[7], "up"));
        if (!strcmp(mode, "pingpong")) return pingpong(argv[2], atoi(argv[3]), atol(argv[5]));
        if (!strcmp(mode, "hold")) return hold(argv[2], atoi(argv[3]), atol(argv[5]));
    }
    fprintf(stderr, "usage: see the head of load.c\n");
    return 2;
}
