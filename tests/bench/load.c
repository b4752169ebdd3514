/* The bench's client: closed-loop HTTP/1.1 load over keep-alive connections, for JSON answers and event streams alike.
 *
 *   load -p PORT -c CONNECTIONS -d SECONDS -b BODY_FILE
 *        [-r RATE] [-R RAMP_MS] [-e STATUS] [-P PATH] [-H 'name: value']...
 *
 * Each connection posts the body, reads the answer to its end and posts again. When the time is up nothing new is sent
 * and what is under way is read to its end (DRAIN_S at most), so that the counts agree with the upstream's to the unit
 * and CPU can be divided by all that was answered. Times cover every answer, so that slow ones are not left out;
 * the counts "in_window" are for rates. Dials are spread over RAMP_MS (10).
 * With a RATE a second, requests fall due by the clock instead, whatever became of those before: one that finds no
 * connection free waits, and its times count from the moment it was due. `unsent` were due and never left.
 * Prints one JSON object. Errors are counted by kind and never hidden:
 *   wrong_status  an answer whose status is not STATUS (200 by default)
 *   cut           a stream without [DONE], or an answer that ended before its framing said
 *   lost          a connection that could not be made or died before an answer; `unfinished`: open after the drain
 * Times are microseconds from the request's write: `first` to the first body byte (for a stream, its first event),
 * `whole` to the answer's end; `gap` is a stream's longest wait from one event to the next. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "times.h"

enum { HEAD_MAX = 16384, DRAIN_S = 10, MARK = 8 };
enum part { HEAD, SIZED, TO_CLOSE, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct connection {
    int fd;
    enum part part;
    char head[HEAD_MAX];
    size_t head_len, left;
    int status, mark_len;
    char mark[MARK]; /* the first bytes of the current line of a stream */
    bool idle, connecting, closing, is_stream, saw_done, line_has_text;
    size_t sent;
    uint64_t began_ns, first_ns, last_ns, gap_ns;
    struct connection *next_idle;
};

static struct {
    uint64_t answers, answers_in_window, events, events_in_window, bytes, wrong_status, cut, lost;
    int last_wrong_status;
} seen;
static struct times first_times, whole_times, gap_times;
static struct sockaddr_in address;
static char *request;
static size_t request_len;
static int poller, ticker, open_connections, wanted_status = 200;
static uint64_t stop_ns, ramp_ns = 10 * 1000000ull; /* one spacing of the mock: no lockstep */
static uint64_t interval_ns, due_ns; /* when paced: between two requests, and when the next one is due */
static struct connection *first_idle, *last_idle;

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &e);
}

static void dial(struct connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS) { perror("load: connect"); exit(1); }
    c->connecting = true;
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

/* Writes the rest of the request; a long prompt does not always fit the socket at once. */
static void push_request(struct connection *c) {
    while (c->sent < request_len) {
        ssize_t n = write(c->fd, request + c->sent, request_len - c->sent);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break; /* a dead connection shows itself at the next read */
        c->sent += (size_t)n;
    }
    watch(c, EPOLL_CTL_MOD, EPOLLIN | (c->sent < request_len ? EPOLLOUT : 0));
}

static void begin(struct connection *c, uint64_t began_ns) {
    c->part = HEAD;
    c->head_len = c->sent = 0;
    c->mark_len = 0;
    c->closing = c->is_stream = c->saw_done = false;
    c->first_ns = c->last_ns = c->gap_ns = 0;
    c->began_ns = began_ns;
    ssize_t n = write(c->fd, request, request_len);
    c->sent = n > 0 ? (size_t)n : 0;
    if (c->sent < request_len) push_request(c);
}

/* Starts what is due, as far as there are idle connections; the one that has been idle longest goes first. */
static void begin_due(uint64_t now) {
    for (; first_idle && due_ns <= now && now < stop_ns; due_ns += interval_ns) {
        struct connection *c = first_idle;
        first_idle = c->next_idle;
        c->idle = false;
        begin(c, due_ns);
    }
}

static void begin_or_wait(struct connection *c) {
    if (!interval_ns) { begin(c, now_ns()); return; }
    c->next_idle = NULL;
    c->idle = true;
    if (first_idle) last_idle->next_idle = c;
    else first_idle = c;
    last_idle = c;
    begin_due(now_ns());
}

static void retire(struct connection *c) {
    close(c->fd);
    c->fd = -1;
    open_connections--;
}

static void next_request(struct connection *c, uint64_t now, bool redial) {
    if (now >= stop_ns) { retire(c); return; }
    if (redial) close(c->fd);
    if (redial) dial(c);
    else begin_or_wait(c);
}

static void lose(struct connection *c, uint64_t now) {
    seen.lost++;
    if (c->connecting) usleep(1000); /* nobody listens: don't spin */
    next_request(c, now, true);
}

static void finish(struct connection *c, uint64_t now) {
    if (c->status != wanted_status) {
        seen.wrong_status++;
        seen.last_wrong_status = c->status;
    } else if (c->is_stream && !c->saw_done) {
        seen.cut++;
    } else {
        seen.answers++;
        if (now <= stop_ns) seen.answers_in_window++;
        note(&whole_times, now - c->began_ns);
        if (c->is_stream) note(&gap_times, c->gap_ns);
    }
    next_request(c, now, c->closing);
}

static void note_first(struct connection *c, uint64_t now) {
    if (c->first_ns) return;
    c->first_ns = now;
    note(&first_times, now - c->began_ns);
}

static void note_event(struct connection *c, uint64_t now) {
    note_first(c, now);
    if (c->last_ns && now - c->last_ns > c->gap_ns) c->gap_ns = now - c->last_ns;
    c->last_ns = now;
    seen.events++;
    if (now <= stop_ns) seen.events_in_window++;
    if (!memcmp(c->mark, "data: [D", MARK)) c->saw_done = true;
}

/* Body bytes. In a stream, counts the lines that begin with "data:". */
static void read_text(struct connection *c, const char *text, size_t len, uint64_t now) {
    if (!c->is_stream) note_first(c, now);
    for (size_t i = 0; c->is_stream && i < len;) {
        if (c->mark_len == MARK) {
            const char *line_end = memchr(text + i, '\n', len - i);
            if (!line_end) return;
            i = (size_t)(line_end - text) + 1;
            c->mark_len = 0;
        } else if (text[i] == '\n') {
            c->mark_len = 0;
            i++;
        } else {
            c->mark[c->mark_len++] = text[i++];
            if (c->mark_len == MARK && !memcmp(c->mark, "data:", 5)) note_event(c, now);
        }
    }
}

static const char *header(const char *head, const char *name) {
    const char *at = strcasestr(head, name);
    return at ? at + strlen(name) + strspn(at + strlen(name), " \t") : NULL;
}

static void read_head(struct connection *c) {
    const char *type = header(c->head, "\r\ncontent-type:"), *linger = header(c->head, "\r\nconnection:");
    const char *length = header(c->head, "\r\ncontent-length:");
    c->status = atoi(c->head + 9);
    c->closing = linger && !strncasecmp(linger, "close", 5);
    c->is_stream = type && !strncasecmp(type, "text/event-stream", 17);
    c->left = length ? strtoull(length, NULL, 10) : 0;
    if (header(c->head, "\r\ntransfer-encoding:")) {
        c->part = CHUNK_SIZE;
        c->left = 0;
    } else if (length) {
        c->part = SIZED;
    } else {
        c->part = TO_CLOSE;
        c->closing = true;
    }
}

/* Takes head bytes up to its end; returns how many bytes were the head's. */
static size_t take_head(struct connection *c, const char *text, size_t len) {
    size_t taken = len < HEAD_MAX - 1 - c->head_len ? len : HEAD_MAX - 1 - c->head_len;
    size_t before = c->head_len, from = before < 3 ? 0 : before - 3;
    memcpy(c->head + before, text, taken);
    c->head_len += taken;
    char *end = memmem(c->head + from, c->head_len - from, "\r\n\r\n", 4);
    if (!end && c->head_len == HEAD_MAX - 1) { fprintf(stderr, "load: an answer's head is too long\n"); exit(1); }
    if (!end) return taken;
    end[2] = 0;
    read_head(c);
    return (size_t)(end + 4 - c->head) - before;
}

static int hex(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    return (digit | 32) >= 'a' && (digit | 32) <= 'f' ? (digit | 32) - 'a' + 10 : -1;
}

/* One byte between chunks: sizes, line ends and trailers. Returns true at the end of the answer. */
static bool take_framing(struct connection *c, char byte) {
    if (c->part == CHUNK_END && byte == '\n') {
        c->part = CHUNK_SIZE;
        c->left = 0;
    } else if (c->part == CHUNK_SIZE && hex(byte) >= 0) {
        c->left = 16 * c->left + (size_t)hex(byte);
    } else if (c->part == CHUNK_SIZE && byte == '\n') {
        c->part = c->left ? CHUNK_DATA : TRAILER;
        c->line_has_text = false;
    } else if (c->part == TRAILER && byte == '\n') {
        if (!c->line_has_text) return true;
        c->line_has_text = false;
    } else if (c->part == TRAILER && byte != '\r') {
        c->line_has_text = true;
    }
    return false;
}

/* Reads what arrived; returns true at the end of the answer. */
static bool take(struct connection *c, const char *text, size_t len, uint64_t now) {
    for (size_t i = 0; i < len;) {
        if (c->part == HEAD) {
            i += take_head(c, text + i, len - i);
            if (c->part == SIZED && !c->left) return true;
        } else if (c->part == TO_CLOSE) {
            read_text(c, text + i, len - i, now);
            return false;
        } else if (c->part == SIZED || c->part == CHUNK_DATA) {
            size_t n = len - i < c->left ? len - i : c->left;
            read_text(c, text + i, n, now);
            i += n;
            c->left -= n;
            if (!c->left && c->part == SIZED) return true;
            if (!c->left) c->part = CHUNK_END;
        } else if (take_framing(c, text[i++])) {
            return true;
        }
    }
    return false;
}

static void on_closed(struct connection *c, uint64_t now) {
    if (c->part == TO_CLOSE && !c->connecting) { finish(c, now); return; }
    if (c->connecting || (c->part == HEAD && !c->head_len)) { lose(c, now); return; }
    seen.cut++;
    next_request(c, now, true);
}

static void on_ready(struct connection *c, uint32_t events) {
    static char buffer[1 << 16];
    if (c->connecting && (events & EPOLLOUT) && !(events & (EPOLLERR | EPOLLHUP))) {
        c->connecting = false;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
        begin_or_wait(c);
        return;
    }
    if ((events & EPOLLOUT) && !c->connecting) push_request(c);
    if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP))) return;
    ssize_t n = read(c->fd, buffer, sizeof buffer);
    uint64_t now = now_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0 && c->idle) { fprintf(stderr, "load: an idle connection was closed\n"); exit(1); }
    if (n <= 0) { on_closed(c, now); return; }
    seen.bytes += (uint64_t)n;
    if (take(c, buffer, (size_t)n, now)) finish(c, now);
}

/* A timer that ticks when a request is due; its event carries no connection. */
static void tick(void) {
    if (!interval_ns) return;
    struct timespec step = {.tv_sec = (time_t)(interval_ns / 1000000000ull)};
    step.tv_nsec = (long)(interval_ns % 1000000000ull);
    struct itimerspec every = {.it_interval = step, .it_value = step};
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    ticker = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    timerfd_settime(ticker, 0, &every, NULL);
    epoll_ctl(poller, EPOLL_CTL_ADD, ticker, &e);
}

static void on_tick(void) {
    uint64_t ticks;
    if (read(ticker, &ticks, sizeof ticks) > 0) begin_due(now_ns());
}

static void retire_idle(void) {
    for (; first_idle; first_idle = first_idle->next_idle) retire(first_idle);
}

static void run(int connections) {
    struct epoll_event ready[256];
    struct connection *all = or_die(calloc((size_t)connections, sizeof *all));
    uint64_t start_ns = now_ns(), now = start_ns, pause_ns = ramp_ns / (uint64_t)connections;
    int dialled = 0;
    poller = epoll_create1(0);
    open_connections = connections;
    due_ns = start_ns + 2 * ramp_ns;
    tick();
    for (; open_connections && now < stop_ns + DRAIN_S * 1000000000ull; now = now_ns()) {
        while (dialled < connections && now >= start_ns + (uint64_t)dialled * pause_ns) dial(&all[dialled++]);
        int n = epoll_wait(poller, ready, 256, dialled < connections ? 0 : 100);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.ptr) on_ready(ready[i].data.ptr, ready[i].events);
            else on_tick();
        }
        if (now >= stop_ns) retire_idle();
    }
}

static void report(double seconds) {
    printf("{\"seconds\":%.3f,\"answers\":%lu,\"answers_in_window\":%lu,\"events\":%lu,\"events_in_window\":%lu,"
           "\"bytes\":%lu,\"wrong_status\":%lu,\"last_wrong_status\":%d,\"cut\":%lu,\"lost\":%lu,\"unfinished\":%d,"
           "\"unsent\":%lu",
           seconds, seen.answers, seen.answers_in_window, seen.events, seen.events_in_window, seen.bytes,
           seen.wrong_status, seen.last_wrong_status, seen.cut, seen.lost, open_connections,
           interval_ns && due_ns < stop_ns ? (stop_ns - due_ns) / interval_ns : 0);
    print_times("first", &first_times);
    print_times("whole", &whole_times);
    print_times("gap", &gap_times);
    printf("}\n");
}

static char *read_file(const char *path, size_t *len) {
    FILE *file = or_die(fopen(path, "rb"));
    char *text = or_die(malloc(4 << 20));
    *len = fread(text, 1, 4 << 20, file);
    fclose(file);
    return text;
}

static void build_request(const char *path, const char *headers, const char *body_file) {
    size_t body_len;
    char *body = read_file(body_file, &body_len);
    int head_len = asprintf(&request, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                            "Content-Length: %zu\r\n%s\r\n", path, ntohs(address.sin_port), body_len, headers);
    request_len = (size_t)head_len + body_len;
    request = or_die(realloc(request, request_len));
    memcpy(request + head_len, body, body_len);
    free(body);
}

int main(int argc, char **argv) {
    const char *path = "/v1/chat/completions", *body_file = NULL;
    char headers[4096] = "";
    int connections = 1, port = 0, option;
    double seconds = 1;
    while ((option = getopt(argc, argv, "p:c:d:b:r:R:e:P:H:")) != -1) {
        size_t used = strlen(headers);
        if (option == 'p') port = atoi(optarg);
        else if (option == 'c') connections = atoi(optarg);
        else if (option == 'd') seconds = atof(optarg);
        else if (option == 'b') body_file = optarg;
        else if (option == 'r') interval_ns = (uint64_t)(1e9 / atof(optarg));
        else if (option == 'R') ramp_ns = (uint64_t)(atof(optarg) * 1e6);
        else if (option == 'e') wanted_status = atoi(optarg);
        else if (option == 'P') path = optarg;
        else if (option == 'H') snprintf(headers + used, sizeof headers - used, "%s\r\n", optarg);
        else return 2;
    }
    if (!port || !body_file || connections < 1) {
        fprintf(stderr, "load -p PORT -c CONNECTIONS -d SECONDS -b BODY_FILE\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the bench that started it may be killed */
    signal(SIGPIPE, SIG_IGN);
    address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    build_request(path, headers, body_file);
    stop_ns = now_ns() + (uint64_t)(seconds * 1e9);
    run(connections);
    report(seconds);
}
