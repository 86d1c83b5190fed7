// Floats, and what they print as: sums whose rounding shows, special values, the sign of zero.
#include <math.h>
#include <stdio.h>

int main(int argc, char **argv) {
    (void)argv;
    double zero = argc - 1, sum = 0;
    for (int i = 1; i <= 1000000; i++) sum += 1.0 / i * (i % 2 ? 1 : -1);
    printf("%.17g %a\n", sum, sum);
    printf("%g %g %g %g\n", 1 / zero, -1 / zero, zero / zero, -zero);
    printf("%.17g %.17g %.17g\n", sqrt(2 + zero), sin(1 + zero), pow(1.1 + zero, 100));
    union { double number; unsigned long long bits; } nan = {.number = zero / zero};
    printf("%016llx\n", nan.bits);
    printf("%.3f %e %g\n", 1e15 / 3, 1e-300 / 7, 123456789.0);
    return 0;
}
