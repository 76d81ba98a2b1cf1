/* NVIDIA's management library as far as it is asked, for a machine with
   0  a GPU that is cut into two slices     2  a GPU that works in the CPU's memory
   1  a GPU of another kind                 3  a GPU that has fallen off the bus
   INIT is what it starts with (0: fine); OLD leaves out what old drivers lack.
   1 counts its energy, which tests set; 2 tells only its power. */
#include <string.h>

struct card {
  const char *name, *uuid;
  int major, minor;
  unsigned long long total;
  unsigned count;
  struct card *slices;
};

static struct card slices[] = {
  {"NVIDIA H100 MIG 1g.10gb", "MIG-1", 0, 0, 10ULL << 30, 0, 0},
  {"NVIDIA H100 MIG 3g.40gb", "MIG-2", 0, 0, 40ULL << 30, 0, 0},
};
static struct card cards[] = {
  {"NVIDIA H100", "GPU-h", 9, 0, 80ULL << 30, 2, slices},
  {"NVIDIA L4", "GPU-l", 8, 9, 24ULL << 30, 0, 0},
  {"NVIDIA GB10", "GPU-g", 12, 1, 0, 0, 0},
  {0},
};
enum { INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };

int alive; /* started and not shut down */

static int say(const char *text, char *to, unsigned n) {
  if (strlen(text) >= n) return TOO_SMALL;
  strcpy(to, text);
  return 0;
}

int nvmlInit_v2(void) { alive++; return INIT; }
int nvmlShutdown(void) { alive--; return 0; }
int nvmlSystemGetDriverVersion(char *to, unsigned n) { return say("580.65.06", to, n); }
#ifndef OLD
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12080; return 0; }
#endif
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 4; return 0; }
int nvmlDeviceGetName(struct card *c, char *to, unsigned n) { return say(c->name, to, n); }
int nvmlDeviceGetUUID(struct card *c, char *to, unsigned n) { return say(c->uuid, to, n); }

int nvmlDeviceGetHandleByIndex_v2(unsigned i, struct card **c) {
  *c = &cards[i];
  return cards[i].name ? 0 : LOST;
}

int nvmlDeviceGetCudaComputeCapability(struct card *c, int *major, int *minor) {
  *major = c->major;
  *minor = c->minor;
  return c->major ? 0 : INVALID;
}

int nvmlDeviceGetMemoryInfo(struct card *c, unsigned long long *total_free_used) {
  if (!c->total) return NOT_SUPPORTED;
  total_free_used[0] = c->total;
  total_free_used[1] = total_free_used[2] = c->total / 2;
  return 0;
}

int nvmlDeviceGetMigMode(struct card *c, unsigned *now, unsigned *next) {
  if (c->major != 9) return NOT_SUPPORTED;
  *now = *next = c->count > 0;
  return 0;
}

int nvmlDeviceGetMaxMigDeviceCount(struct card *c, unsigned *n) { *n = 7; return c->slices ? 0 : NOT_SUPPORTED; }

int nvmlDeviceGetMigDeviceHandleByIndex(struct card *c, unsigned i, struct card **slice) {
  if (i >= c->count) return NOT_FOUND;
  *slice = &c->slices[i];
  return 0;
}

#ifndef OLD
unsigned long long energy_mj;
unsigned power_mw;
int lost; /* no card answers any more */

int nvmlDeviceGetTotalEnergyConsumption(struct card *c, unsigned long long *mj) {
  *mj = energy_mj;
  return lost ? LOST : c->major == 12 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetPowerUsage(struct card *c, unsigned *mw) {
  *mw = power_mw;
  return lost ? LOST : c->name ? 0 : INVALID;
}
#endif
