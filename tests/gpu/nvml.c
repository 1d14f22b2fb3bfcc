/* Answers as NVIDIA's libnvidia-ml.so.1 does, of one GPU that is not there. FAKE_NVML says how it is with it:

   ours        a child of the process that asks has memory, and is busy
   idle        the same, and nothing is computed
   others      process 1 has memory, and is busy
   mig         as ours, in a part: how busy a part is, is not told
   hidden      no processes are told, and memory is taken from the second look on
   stranger    from the second look on a process has memory whose number nobody here has
   none        there is no GPU
   unloaded    the driver is not loaded

   With -DOLD it has the functions of drivers before 2020 alone. Types and numbers are those of nvml.h. */

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *device;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; } old_process;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
typedef struct { unsigned pid; unsigned long long time; unsigned sm, mem, enc, dec; } sample;

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NOT_LOADED = 9 };

static int looks;

static int is(const char *what)
{
    const char *said = getenv("FAKE_NVML");
    return strcmp(said ? said : "ours", what) == 0;
}

/* A child of this process; 0 without one. */
static unsigned child(void)
{
    unsigned found = 0;
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    while (proc && (entry = readdir(proc)) != NULL) {
        char path[300], state;
        int pid, parent;
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        FILE *stat = fopen(path, "r");
        if (stat && fscanf(stat, "%d (%*[^)]) %c %d", &pid, &state, &parent) == 3 && parent == getpid() && state != 'Z')
            found = (unsigned)pid;
        if (stat)
            fclose(stat);
    }
    if (proc)
        closedir(proc);
    return found;
}

static unsigned who(void)
{
    if (is("others"))
        return 1;
    if (is("stranger"))
        return looks > 1 ? 4000000 : 0;
    return is("hidden") || is("none") ? 0 : child();
}

int nvmlShutdown(void) { looks = 0; return OK; }

static int text(char *to, unsigned length, const char *what) { snprintf(to, length, "%s", what); return OK; }
int nvmlSystemGetDriverVersion(char *to, unsigned length) { return text(to, length, "550.54.15"); }
int nvmlDeviceGetName(device d, char *to, unsigned length) { return text(to, length, "Imagined GPU"); }
int nvmlDeviceGetUUID(device d, char *to, unsigned length) { return text(to, length, d ? "MIG-1" : "GPU-1"); }

int nvmlInit_v2(void) { return is("unloaded") ? NOT_LOADED : OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = is("none") ? 0 : 1; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *d) { *d = NULL; return OK; }

int nvmlDeviceGetMemoryInfo(device d, memory *m)
{
    m->total = 80ull << 30;
    m->used = (is("hidden") || is("stranger")) && looks > 1 ? 3ull << 30 : 1ull << 30;
    m->free = m->total - m->used;
    return OK;
}

#ifdef OLD
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 9010; return OK; }
int nvmlDeviceGetComputeRunningProcesses(device d, unsigned *count, old_process *p)
{
    p[0].pid = who();
    p[0].used = 2ull << 30;
    *count = p[0].pid != 0;
    return OK;
}
#else
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12040; return OK; }
int nvmlDeviceGetMaxMigDeviceCount(device d, unsigned *count) { *count = is("mig") ? 7 : 0; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(device d, unsigned index, device *part)
{
    if (index != 1)
        return NOT_FOUND;
    *part = (device)1;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(device d, unsigned *count, process *p)
{
    looks++;
    p[0].pid = who();
    p[0].used = 2ull << 30;
    *count = p[0].pid != 0;
    return OK;
}
int nvmlDeviceGetProcessUtilization(device d, sample *s, unsigned *count, unsigned long long since)
{
    if (is("mig") || is("hidden"))
        return NOT_SUPPORTED;
    if (is("idle") || !who())
        return NOT_FOUND;
    if (!s || *count < 1) {
        *count = 1;
        return TOO_SMALL;
    }
    *count = 1;
    memset(s, 0, sizeof *s);
    s->pid = who();
    s->time = since + 1;
    s->sm = 61;
    return OK;
}
#endif

int nvmlDeviceGetUtilizationRates(device d, utilization *u)
{
    if (is("mig"))
        return NOT_SUPPORTED;
    u->gpu = is("idle") ? 0 : 73;
    u->memory = 5;
    return OK;
}
