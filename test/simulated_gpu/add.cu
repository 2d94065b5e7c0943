// SPDX-License-Identifier: Apache-2.0
// A kernel for the tests of what calls CUDA: adds a number to each value of an array.

extern "C" __global__ void add(int *values, int number) {
    values[blockIdx.x * blockDim.x + threadIdx.x] += number;
}
