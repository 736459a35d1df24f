/* A mail server that takes everything as fast as it can, for benchmarks: a thread for each connection.
 *
 *     mail_sink DELAY_MICROSECONDS OFFER_PIPELINING
 *
 * It prints its port. Each answer comes DELAY later than what it answers, as over a network with that round trip.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static useconds_t delay;
static int pipelining;

struct talk { int fd; char out[1 << 16]; size_t length; };

static void say(struct talk *talk, const char *text) {
    size_t length = strlen(text);
    if (talk->length + length > sizeof talk->out) return;
    memcpy(talk->out + talk->length, text, length);
    talk->length += length;
}

static int flush(struct talk *talk) {
    if (delay) usleep(delay);
    size_t done = 0;
    while (done < talk->length) {
        ssize_t sent = write(talk->fd, talk->out + done, talk->length - done);
        if (sent <= 0) return 0;
        done += (size_t)sent;
    }
    talk->length = 0;
    return 1;
}

/* Returns 0 at QUIT. */
static int answer(struct talk *talk, const char *line, int *in_body) {
    if (!strncasecmp(line, "DATA", 4)) { say(talk, "354 go on\r\n"); *in_body = 1; }
    else if (!strncasecmp(line, "EHLO", 4))
        say(talk, pipelining ? "250-sink\r\n250-PIPELINING\r\n250 SIZE\r\n" : "250-sink\r\n250 SIZE\r\n");
    else if (!strncasecmp(line, "QUIT", 4)) { say(talk, "221 bye\r\n"); return 0; }
    else say(talk, "250 ok\r\n");
    return 1;
}

static void *serve(void *given) {
    struct talk *talk = calloc(1, sizeof *talk);
    static const char end[] = "\r\n.\r\n";
    size_t size = 1 << 20, used = 0;
    char *in = malloc(size + 1);
    int in_body = 0, goes_on = 1;
    talk->fd = (int)(long)given;
    say(talk, "220 sink\r\n");
    while (goes_on && flush(talk)) {
        int has_answer = 0;
        while (!has_answer && goes_on) {
            ssize_t got = read(talk->fd, in + used, size - used);
            if (got <= 0) goto over;
            used += (size_t)got;
            size_t at = 0;
            while (at < used && goes_on) {
                if (in_body) {
                    char *found = memmem(in + at, used - at, end, 5);
                    if (!found) { /* keep what may be the beginning of the end */
                        size_t kept = used - at < 4 ? used - at : 4;
                        at = used - kept;
                        break;
                    }
                    at = (size_t)(found - in) + 5;
                    in_body = 0;
                    say(talk, "250 2.0.0 queued\r\n");
                    has_answer = 1;
                } else {
                    char *found = memchr(in + at, '\n', used - at);
                    if (!found) break;
                    *found = 0;
                    goes_on = answer(talk, in + at, &in_body);
                    at = (size_t)(found - in) + 1;
                    has_answer = 1;
                    /* The body's end may begin with the end of the line before it. */
                }
            }
            memmove(in, in + at, used - at);
            used -= at;
        }
    }
    flush(talk);
over:
    close(talk->fd);
    free(in);
    free(talk);
    return NULL;
}

int main(int count, char **args) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (count != 3) return 2;
    delay = (useconds_t)atoi(args[1]);
    pipelining = atoi(args[2]);
    signal(SIGPIPE, SIG_IGN);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 512)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        pthread_t thread;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!pthread_create(&thread, NULL, serve, (void *)(long)fd)) pthread_detach(thread);
    }
}
