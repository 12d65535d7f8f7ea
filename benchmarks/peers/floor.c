/* The floor: no server that does one send() for each listener and message costs less than this.
 *
 * One thread and one epoll. It answers each upgrade with the same bytes (those that fit the key
 * of the load client), keeps who asked for /listen, and passes every frame of a publisher on to
 * all of them from one buffer. No routing, no names, no queues, no checks: a listener that does
 * not take a whole frame at once is cut.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FILES = 32768, EVENTS = 256, PENDING = 1 << 20, HEAD = 4, LONGEST = 65535 };
enum kind { STRANGER, LISTENER, PUBLISHER };

static const char answer[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: tk+2ZcIeQLy7WVZLR3zGCTBjwM0=\r\n\r\n";
static struct {
    enum kind kind;
    int place;
} peers[FILES];
static int members[FILES], count;
static unsigned char pending[PENDING], frame[HEAD + LONGEST];
static size_t held; /* bytes of the one publisher that are no whole frame yet */

static void drop(int fd) {
    if (peers[fd].kind == LISTENER) {
        members[peers[fd].place] = members[--count];
        peers[members[count]].place = peers[fd].place;
    }
    peers[fd].kind = STRANGER;
    close(fd);
}

static void publish(const unsigned char *payload, size_t size) {
    size_t head = 2;
    frame[0] = 0x81;
    if (size < 126) {
        frame[1] = size;
    } else {
        head = 4;
        frame[1] = 126, frame[2] = size >> 8, frame[3] = size & 255;
    }
    memcpy(frame + head, payload, size);
    for (int i = count - 1; i >= 0; i--)
        if (send(members[i], frame, head + size, MSG_NOSIGNAL) != (ssize_t)(head + size))
            drop(members[i]);
}

static void take_frames(void) {
    size_t start = 0;
    while (held - start >= 6) {
        unsigned char *at = pending + start;
        size_t size = at[1] & 127, head = 6;
        if (size == 126) {
            size = at[2] << 8 | at[3];
            head = 8;
        }
        if (held - start < head + size)
            break;
        for (size_t i = 0; i < size; i++)
            at[head + i] ^= at[head - 4 + (i & 3)];
        if ((at[0] & 15) == 1)
            publish(at + head, size);
        start += head + size;
    }
    memmove(pending, pending + start, held -= start);
}

static void greet(int fd, const unsigned char *request, size_t size) {
    peers[fd].kind = memmem(request, size, "/publish ", 9) ? PUBLISHER : LISTENER;
    if (peers[fd].kind == LISTENER) {
        peers[fd].place = count;
        members[count++] = fd;
    } else {
        held = 0;
    }
    if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
        drop(fd);
}

static void serve(int fd) {
    static unsigned char buffer[PENDING];
    int publisher = peers[fd].kind == PUBLISHER;
    ssize_t size = publisher ? recv(fd, pending + held, PENDING - held, 0)
                             : recv(fd, buffer, sizeof buffer, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) {
        drop(fd);
    } else if (publisher) {
        held += size;
        take_frames();
    } else if (peers[fd].kind == STRANGER) {
        greet(fd, buffer, size);
    } else if ((buffer[0] & 15) == 8) {
        drop(fd);
    }
}

static void welcome(int listening, int epoll) {
    int fd, on = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= FILES) {
            close(fd);
            continue;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int epoll = epoll_create1(0), listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listening}, events[EVENTS];
    if (bind(listening, (void *)&address, sizeof address) || listen(listening, 2048) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event)) {
        perror("floor");
        return 1;
    }
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listening)
                welcome(listening, epoll);
            else
                serve(events[i].data.fd);
        }
    }
}
