# SPDX-License-Identifier: Apache-2.0
"""A kernel that adds a number to each value of an array, to try out what calls CUDA."""

from __future__ import annotations

import numpy as np

from scrfd_ros.inference.cuda_api import CudaApi

# What simulated_gpu/add.cu is for a GPU.
ADD = b"""
.version 7.0
.target sm_75
.address_size 64

.visible .entry add(
	.param .u64 add_param_0,
	.param .u32 add_param_1
)
{
	.reg .b32 %r<8>;
	.reg .b64 %rd<5>;
	ld.param.u64 %rd1, [add_param_0];
	ld.param.u32 %r1, [add_param_1];
	cvta.to.global.u64 %rd2, %rd1;
	mov.u32 %r2, %ctaid.x;
	mov.u32 %r3, %ntid.x;
	mov.u32 %r4, %tid.x;
	mad.lo.s32 %r5, %r2, %r3, %r4;
	mul.wide.u32 %rd3, %r5, 4;
	add.s64 %rd4, %rd2, %rd3;
	ld.global.u32 %r6, [%rd4];
	add.s32 %r7, %r6, %r1;
	st.global.u32 [%rd4], %r7;
	ret;
}
"""


class Adder:
    """Ten numbers that go to the device, are added to there, and come back."""

    def __init__(self, cuda: CudaApi) -> None:
        self.cuda = cuda
        self.array = cuda.pinned(10, np.int32)
        self.memory = cuda.memory(self.array.nbytes)
        self.stream = cuda.stream()
        self.module = cuda.module(ADD)
        self.kernel = cuda.kernel(self.module, "add")

    def add(self, number: int = 5, grid: int = 2) -> None:
        self.cuda.copy_in(int(self.memory), self.array, self.stream)
        arguments = (np.uint64(int(self.memory)), np.int32(number))
        self.cuda.launch(self.kernel, (grid, 1, 1), (5, 1, 1), arguments, self.stream)
        self.cuda.copy_out(self.array, int(self.memory), self.stream)
