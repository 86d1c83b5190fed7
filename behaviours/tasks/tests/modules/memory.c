// Takes memory until there is no more, and shows how much there was; then uses all of it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    enum { STEP = 1 << 20, MOST = 4096 };
    static char *blocks[MOST];
    int taken = 0;
    while (taken < MOST && (blocks[taken] = malloc(STEP))) taken++;
    unsigned sum = 0;
    for (int i = 0; i < taken; i++) memset(blocks[i], i, STEP), sum += (unsigned char)blocks[i][STEP / 2];
    printf("%d MiB, sum %u\n", taken, sum);
    return 0;
}
