// Time and randomness as the host shows them.
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    struct timespec real, start, end;
    clock_gettime(CLOCK_REALTIME, &real);
    clock_gettime(CLOCK_MONOTONIC, &start);
    sleep(3600);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("year %d\n", 1900 + gmtime(&real.tv_sec)->tm_year);
    printf("real %lld.%09ld\n", (long long)real.tv_sec, real.tv_nsec);
    printf("slept %lld s\n", (long long)(end.tv_sec - start.tv_sec));
    unsigned char random[16];
    getentropy(random, sizeof random);
    for (unsigned i = 0; i < sizeof random; i++) printf("%02x", random[i]);
    printf("\n");
    return 0;
}
