// Memory that a thread's kernels use one after the other: kept for the next one, gone with the thread.
#pragma once
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

class Scratch {
  public:
    // At least so many bytes at a multiple of 64, of any content, or null where there is not enough memory. What was
    // taken before in this thread is lost.
    static void* take(size_t bytes) {
        pthread_once(&once_, make_key);
        if (!has_key_) return nullptr;
        Held* held = static_cast<Held*>(pthread_getspecific(key_));
        if (held && held->bytes >= bytes) return held + 1;
        free(held);
        pthread_setspecific(key_, nullptr);
        held = static_cast<Held*>(aligned_alloc(sizeof(Held), (sizeof(Held) + bytes + sizeof(Held) - 1) / sizeof(Held) * sizeof(Held)));
        if (held == nullptr) return nullptr;
        held->bytes = bytes;
        if (pthread_setspecific(key_, held) == 0) return held + 1;
        free(held);
        return nullptr;
    }

  private:
    struct alignas(64) Held {
        size_t bytes;
    };
    static void make_key() { has_key_ = pthread_key_create(&key_, free) == 0; }
    static inline pthread_once_t once_ = PTHREAD_ONCE_INIT;
    static inline bool has_key_ = false;
    static inline pthread_key_t key_;
};
