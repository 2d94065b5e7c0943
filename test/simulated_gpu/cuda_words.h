/* SPDX-License-Identifier: Apache-2.0
 * The few words of CUDA C that our kernels use, so that a C++ compiler builds them for the
 * processor. Who calls a kernel sets the four variables before, for each thread of each block. */
#pragma once
#include <math.h>
#include <stdint.h>

struct dim3 {
    unsigned x, y, z;
};
/* Weak: several files that are linked together have them in common. */
extern "C" {
__attribute__((weak)) dim3 threadIdx, blockIdx, blockDim, gridDim;
}

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

template <class T> static inline T atomicAdd(T *address, T value) {
    T before = *address;
    *address = before + value;
    return before;
}
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }
