/* What the test programs share: checks that name their place, log functions, small helpers. */

#ifndef CHECK_H
#define CHECK_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vixDiskLib.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The code of a call is this one. */
#define GIVES(code, call) gives((code), (call), #call, __FILE__, __LINE__)
#define WORKS(call) GIVES(VIX_OK, call)

static inline void gives(VixError wanted, VixError error, const char *call, const char *file, int line)
{
    char *text;

    if (VIX_ERROR_CODE(error) == wanted)
        return;
    text = VixDiskLib_GetErrorText(error, NULL);
    fprintf(stderr, "%s:%d: %s gave %s, not %llu\n", file, line, call, text, (unsigned long long)wanted);
    VixDiskLib_FreeErrorText(text);
    exit(1);
}

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static int logged, warned, panicked;

/* Formats every line, as a program that prints it does, and looks at its end. */
static inline void take_line(int *count, const char *format, va_list arguments)
{
    char line[4096];
    int length = vsnprintf(line, sizeof line, format, arguments);

    CHECK(length > 1);
    CHECK((size_t)length >= sizeof line || line[length - 1] == '\n');
    pthread_mutex_lock(&log_lock);
    (*count)++;
    if (getenv("SHOW_LOG"))
        fprintf(stderr, "log: %s", line);
    pthread_mutex_unlock(&log_lock);
}

static inline void on_log(const char *format, va_list arguments)
{
    take_line(&logged, format, arguments);
}

static inline void on_warning(const char *format, va_list arguments)
{
    take_line(&warned, format, arguments);
}

static inline void on_panic(const char *format, va_list arguments)
{
    take_line(&panicked, format, arguments);
}

/* What a completion function was told, and waiting for it. */
struct completion {
    pthread_mutex_t lock;
    pthread_cond_t told;
    int calls;
    VixError result;
};

static inline void on_completion(void *data, VixError result)
{
    struct completion *completion = data;

    pthread_mutex_lock(&completion->lock);
    completion->calls++;
    completion->result |= result;
    pthread_cond_signal(&completion->told);
    pthread_mutex_unlock(&completion->lock);
}

static inline void begin(struct completion *completion)
{
    pthread_mutex_init(&completion->lock, NULL);
    pthread_cond_init(&completion->told, NULL);
    completion->calls = 0;
    completion->result = VIX_OK;
}

static inline VixError await_calls(struct completion *completion, int calls)
{
    pthread_mutex_lock(&completion->lock);
    while (completion->calls < calls)
        pthread_cond_wait(&completion->told, &completion->lock);
    pthread_mutex_unlock(&completion->lock);
    return completion->result;
}

/* The highest percentage that a progress function was told, if they only rose. */
static inline Bool on_progress(void *data, int percent)
{
    int *highest = data;

    CHECK(percent >= *highest && percent <= 100);
    *highest = percent;
    return TRUE;
}

#endif
