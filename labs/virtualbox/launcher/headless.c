/*
 * Starts a VM as VBoxHeadless does, without VirtualBox's kernel module: the product has a driverless mode, and an
 * interpreter that runs a guest in it, but no front end of its own that asks for it. Lies in place of VBoxHeadless.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

/* SUPR3INIT_F_DRIVERLESS and SUPR3INIT_F_DRIVERLESS_IEM_ALLOWED (VirtualBox, include/VBox/sup.h). */
#define DRIVERLESS 4u
#define DRIVERLESS_IEM_ALLOWED 8u

#define LIBRARIES "/usr/lib/virtualbox/"

typedef int init_exe(int argc, char ***argv, uint32_t flags);
typedef int init_support(uint32_t flags, void **session);
typedef int trusted_main(int argc, char **argv, char **environment);

static void *symbol(const char *library, const char *name)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
    void *found = handle ? dlsym(handle, name) : NULL;
    if (!found)
        fprintf(stderr, "%s: %s\n", name, dlerror());
    return found;
}

int main(int argc, char **argv, char **environment)
{
    void *session;
    init_exe *init = (init_exe *)symbol(LIBRARIES "VBoxRT.so", "RTR3InitExe");
    init_support *support = (init_support *)symbol(LIBRARIES "VBoxRT.so", "SUPR3InitEx");
    if (!init || !support)
        return 1;
    int status = init(argc, &argv, 0);
    if (status >= 0)
        status = support(DRIVERLESS | DRIVERLESS_IEM_ALLOWED, &session);
    if (status < 0) {
        fprintf(stderr, "VirtualBox's runtime does not start: %d\n", status);
        return 1;
    }
    trusted_main *run = (trusted_main *)symbol(LIBRARIES "VBoxHeadless.so", "TrustedMain");
    return run ? run(argc, argv, environment) : 1;
}
