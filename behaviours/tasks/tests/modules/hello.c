// Arguments, environment and standard input, shown on standard output; the exit code is the number of arguments.
#include <stdio.h>
#include <stdlib.h>

extern char **environ;

int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++) printf("arg %d: %s\n", i, argv[i]);
    for (char **variable = environ; *variable; variable++) printf("env: %s\n", *variable);
    char buffer[4096];
    size_t got;
    while ((got = fread(buffer, 1, sizeof buffer, stdin)) > 0) fwrite(buffer, 1, got, stdout);
    fprintf(stderr, "hello from %s\n", getenv("NAME") ? getenv("NAME") : "nobody");
    return argc - 1;
}
