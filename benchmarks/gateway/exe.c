// Preloaded into llama-server's router mode, which starts its children from /proc/self/exe: names the stub instead, so
// that all planes of the benchmark stand in front of the same engine.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

ssize_t readlink(const char *path, char *buf, size_t size) {
  const char *child = getenv("BENCH_CHILD");
  if (child && !strcmp(path, "/proc/self/exe")) {
    size_t n = strlen(child) < size ? strlen(child) : size;
    memcpy(buf, child, n);
    return (ssize_t)n;
  }
  ssize_t (*real)(const char *, char *, size_t) = dlsym(RTLD_NEXT, "readlink");
  return real(path, buf, size);
}
