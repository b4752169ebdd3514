/* The bench's upstream: an OpenAI-shaped server that is never the bottleneck. One thread, epoll, keep-alive, loopback.
 *
 *   mock -p PORT [-s SPACING_MS]
 *
 * POST (any path)  "stream":true in the body -> an event stream, otherwise one JSON answer
 * GET /stats       what has been answered so far: requests, streams, events, and the tokens reported
 *
 * A request asks for a stream's shape in its prompt, which every gateway forwards: "#mock chunks=100", and "#spaced"
 * for a pause of SPACING_MS before each chunk, "#slow" for one of ten times that. Each event leaves in a write and an
 * HTTP chunk of its own. Usage is a pure function of the request: bytes/4 in; 40 out for a JSON answer, 5 out for each
 * chunk of a stream.
 * Only the first and the last KB of a body are searched, so that a long prompt costs the mock nothing.
 * A request it can't frame (no content-length) is answered 411 and its connection closed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "times.h"

enum { MAX_REQUEST = 8 << 20, SEARCHED = 1024, JSON_TOKENS = 40, CHUNK_TOKENS = 5 };
enum flow { GO_ON, WAIT, DONE, DEAD };

struct connection {
    int fd;
    char *in, *out;
    size_t in_len, in_cap, out_len, out_sent, out_cap;
    struct queue *pauses; /* in which it waits before each chunk; NULL in a burst */
    bool answering, streaming, usage, last, wants_write, queued, closed;
    int chunk, chunks;
    size_t prompt_tokens;
    uint64_t due_ns;
    struct connection *next_due;
};

static struct { uint64_t requests, streams, events, input_tokens, output_tokens; } served;
/* Every pause of a queue is equally long, so each queue is in order of time. */
static struct queue { struct connection *first, *last; uint64_t pause_ns; } spaced, slow;
static int poller;

#define HEAD(status, type) "HTTP/1.1 " status "\r\nContent-Type: " type "\r\n"
#define CHUNK_START \
    "{\"id\":\"chatcmpl-mock0000000000000000000000\",\"object\":\"chat.completion.chunk\",\"created\":1700000000," \
    "\"model\":\"gpt-4o-mini\",\"system_fingerprint\":\"fp_mock\",\"choices\":["
#define USAGE "\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%d,\"total_tokens\":%zu," \
    "\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}"
#define FOX "The quick brown fox jumps over the lazy dog. "

/* A queued connection stays in memory until its turn in the queue comes. */
static void drop(struct connection *c) {
    if (!c->closed) close(c->fd);
    c->closed = true;
    if (c->queued) return;
    free(c->in);
    free(c->out);
    free(c);
}

static void watch_write(struct connection *c, bool wanted) {
    if (c->wants_write == wanted) return;
    struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
    c->wants_write = wanted;
}

/* Writes what the socket takes and keeps the rest: GO_ON, WAIT for room, or DEAD. */
static enum flow put(struct connection *c, const char *text, size_t len) {
    while (c->out_len == 0 && len) {
        ssize_t n = write(c->fd, text, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) return DEAD;
        if (n < 0) break;
        text += n;
        len -= (size_t)n;
    }
    if (!len) return GO_ON;
    if (c->out_len + len > c->out_cap) {
        c->out_cap = 2 * (c->out_len + len);
        c->out = or_die(realloc(c->out, c->out_cap));
    }
    memcpy(c->out + c->out_len, text, len);
    c->out_len += len;
    watch_write(c, true);
    return WAIT;
}

static enum flow put_rest(struct connection *c) {
    while (c->out_sent < c->out_len) {
        ssize_t n = write(c->fd, c->out + c->out_sent, c->out_len - c->out_sent);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN ? WAIT : DEAD;
        c->out_sent += (size_t)n;
    }
    c->out_len = c->out_sent = 0;
    watch_write(c, false);
    return GO_ON;
}

static enum flow put_json(struct connection *c, const char *status, const char *body) {
    char text[2048];
    int n = snprintf(text, sizeof text, HEAD("%s", "application/json") "Content-Length: %zu\r\n\r\n%s", status,
                     strlen(body), body);
    return put(c, text, (size_t)n);
}

static enum flow put_event(struct connection *c, const char *data, const char *after) {
    char text[1024];
    int n = snprintf(text, sizeof text, "%zx\r\ndata: %s\n\n\r\n%s", strlen(data) + 8, data, after);
    served.events++;
    return put(c, text, (size_t)n);
}

static void count(const struct connection *c, int output_tokens) {
    served.input_tokens += c->prompt_tokens;
    served.output_tokens += (uint64_t)output_tokens;
}

static enum flow answer_json(struct connection *c) {
    char body[1536];
    snprintf(body, sizeof body,
             "{\"id\":\"chatcmpl-mock0000000000000000000000\",\"object\":\"chat.completion\",\"created\":1700000000,"
             "\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
             FOX FOX FOX "\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE
             ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\"}",
             c->prompt_tokens, JSON_TOKENS, c->prompt_tokens + JSON_TOKENS);
    count(c, JSON_TOKENS);
    return put_json(c, "200 OK", body) == DEAD ? DEAD : DONE;
}

static enum flow end_stream(struct connection *c) {
    const char *no_usage = c->usage ? ",\"usage\":null}" : "}";
    char data[768];
    snprintf(data, sizeof data, CHUNK_START "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]%s", no_usage);
    enum flow flow = put_event(c, data, "");
    int tokens = CHUNK_TOKENS * c->chunks;
    if (flow != DEAD && c->usage) {
        size_t total = c->prompt_tokens + (size_t)tokens;
        snprintf(data, sizeof data, CHUNK_START "]," USAGE "}", c->prompt_tokens, tokens, total);
        flow = put_event(c, data, "");
    }
    count(c, tokens);
    return flow == DEAD || put_event(c, "[DONE]", "0\r\n\r\n") == DEAD ? DEAD : DONE;
}

/* One chunk of a stream, or its end. */
static enum flow stream_step(struct connection *c) {
    static const char head[] = HEAD("200 OK", "text/event-stream; charset=utf-8")
        "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    if (c->chunk == 0 && put(c, head, sizeof head - 1) == DEAD) return DEAD;
    if (c->chunk == c->chunks) return end_stream(c);
    char data[512];
    snprintf(data, sizeof data,
             CHUNK_START "{\"index\":0,\"delta\":{%s\"content\":\" the quick brown fox jumps\"},"
             "\"finish_reason\":null}]%s",
             c->chunk ? "" : "\"role\":\"assistant\",", c->usage ? ",\"usage\":null}" : "}");
    c->chunk++;
    return put_event(c, data, "");
}

static void pause_stream(struct connection *c) {
    struct queue *queue = c->pauses;
    c->due_ns = now_ns() + queue->pause_ns;
    c->next_due = NULL;
    c->queued = true;
    if (queue->first) queue->last->next_due = c;
    else queue->first = c;
    queue->last = c;
}

/* Carries the answer as far as it goes now; DEAD when the connection is gone. */
static enum flow advance(struct connection *c) {
    while (c->answering) {
        enum flow flow = c->streaming ? stream_step(c) : answer_json(c);
        if (flow == DEAD) { drop(c); return DEAD; }
        if (flow == DONE) c->answering = false;
        else if (c->pauses) { pause_stream(c); return WAIT; }
        else if (flow == WAIT) return WAIT;
    }
    if (!c->last || c->out_len) return DONE;
    drop(c);
    return DEAD;
}

/* `"key" : true` within a text, with any white space. */
static bool is_true(const char *text, size_t len, const char *key) {
    const char *at = memmem(text, len, key, strlen(key)), *end = text + len;
    if (!at) return false;
    at += strlen(key);
    while (at < end && (isspace((unsigned char)*at) || *at == ':')) at++;
    return end - at >= 4 && !memcmp(at, "true", 4);
}

static void read_wishes(struct connection *c, const char *text, size_t len) {
    const char *chunks = memmem(text, len, "#mock chunks=", 13);
    if (chunks) c->chunks = atoi(chunks + 13);
    c->streaming |= is_true(text, len, "\"stream\"");
    c->usage |= is_true(text, len, "\"include_usage\"");
    if (c->streaming && memmem(text, len, "#spaced", 7)) c->pauses = &spaced;
    if (c->streaming && memmem(text, len, "#slow", 5)) c->pauses = &slow;
}

static void begin_answer(struct connection *c, const char *body, size_t len) {
    c->answering = true;
    c->streaming = c->usage = false;
    c->pauses = NULL;
    c->chunk = 0;
    c->chunks = 100;
    c->prompt_tokens = len / 4;
    if (len <= 2 * SEARCHED) read_wishes(c, body, len);
    else {
        read_wishes(c, body, SEARCHED);
        read_wishes(c, body + len - SEARCHED, SEARCHED);
    }
    served.requests++;
    served.streams += c->streaming;
}

static enum flow put_stats(struct connection *c) {
    char body[256];
    snprintf(body, sizeof body,
             "{\"requests\":%lu,\"streams\":%lu,\"events\":%lu,\"input_tokens\":%lu,\"output_tokens\":%lu}",
             served.requests, served.streams, served.events, served.input_tokens, served.output_tokens);
    return put_json(c, "200 OK", body);
}

/* A header's value within a head, or NULL. `name` starts with the line break and ends with the colon. */
static const char *header(const char *head, const char *name) {
    const char *at = strcasestr(head, name);
    return at ? at + strlen(name) + strspn(at + strlen(name), " \t") : NULL;
}

/* Takes the first whole request out of the buffer: GO_ON when there was one, WAIT when not, DEAD when it is refused. */
static enum flow take_request(struct connection *c) {
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end) return WAIT;
    end[2] = 0; /* the head is a string while it is read */
    const char *length = header(c->in, "\r\ncontent-length:"), *linger = header(c->in, "\r\nconnection:");
    size_t head_len = (size_t)(end + 4 - c->in), body_len = length ? strtoull(length, NULL, 10) : 0;
    bool post = !strncmp(c->in, "POST ", 5);
    c->last = linger && !strncasecmp(linger, "close", 5);
    end[2] = '\r';
    if (post && !length) { put_json(c, "411 Length Required", "{}"); return DEAD; }
    if (c->in_len - head_len < body_len) return WAIT;
    if (post) begin_answer(c, c->in + head_len, body_len);
    else if (put_stats(c) == DEAD) return DEAD;
    c->in_len -= head_len + body_len;
    memmove(c->in, c->in + head_len + body_len, c->in_len);
    return GO_ON;
}

static void serve(struct connection *c) {
    while (!c->answering && c->in_len) {
        enum flow flow = take_request(c);
        if (flow == DEAD) drop(c);
        if (flow != GO_ON || advance(c) == DEAD) return;
    }
}

static void on_readable(struct connection *c) {
    if (c->in_cap - c->in_len < 4096) {
        if (c->in_cap >= MAX_REQUEST) { drop(c); return; }
        c->in_cap *= 4;
        c->in = or_die(realloc(c->in, c->in_cap));
    }
    ssize_t n = read(c->fd, c->in + c->in_len, c->in_cap - c->in_len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { drop(c); return; }
    c->in_len += (size_t)n;
    serve(c);
}

/* The client took what was waiting; returns false when the connection is gone. */
static bool on_writable(struct connection *c) {
    enum flow flow = put_rest(c);
    if (flow == DEAD) { drop(c); return false; }
    if (flow == WAIT || c->queued) return true;
    if (advance(c) == DEAD) return false;
    serve(c);
    return true;
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = or_die(calloc(1, sizeof *c));
        c->fd = fd;
        c->in_cap = 8192;
        c->in = or_die(malloc(c->in_cap));
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

static void resume_due(struct queue *queue) {
    uint64_t now = queue->first ? now_ns() : 0;
    while (queue->first && queue->first->due_ns <= now) {
        struct connection *c = queue->first;
        queue->first = c->next_due;
        c->queued = false;
        if (c->closed) drop(c);
        else if (advance(c) == DONE) serve(c);
    }
}

static int milliseconds_to_next(void) {
    uint64_t due = spaced.first ? spaced.first->due_ns : UINT64_MAX, now;
    if (slow.first && slow.first->due_ns < due) due = slow.first->due_ns;
    if (due == UINT64_MAX) return -1;
    now = now_ns();
    return due <= now ? 0 : (int)((due - now + 999999) / 1000000);
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) { perror("mock: listen"); exit(1); }
    return fd;
}

static void run(int listener) {
    struct epoll_event ready[256], e = {.events = EPOLLIN, .data.ptr = NULL};
    poller = epoll_create1(0);
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(poller, ready, 256, milliseconds_to_next());
        for (int i = 0; i < n; i++) {
            struct connection *c = ready[i].data.ptr;
            if (!c) accept_all(listener);
            else if ((ready[i].events & EPOLLOUT) && !on_writable(c)) continue;
            else if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
        }
        resume_due(&spaced);
        resume_due(&slow);
    }
}

int main(int argc, char **argv) {
    int port = 0, option;
    double spacing_ms = 10;
    while ((option = getopt(argc, argv, "p:s:")) != -1) {
        if (option == 'p') port = atoi(optarg);
        else if (option == 's') spacing_ms = atof(optarg);
        else return 2;
    }
    if (!port) { fprintf(stderr, "mock -p PORT [-s SPACING_MS]\n"); return 2; }
    spaced.pause_ns = (uint64_t)(spacing_ms * 1e6);
    slow.pause_ns = 10 * spaced.pause_ns;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the bench that started it may be killed */
    signal(SIGPIPE, SIG_IGN);
    run(listen_on(port));
}
