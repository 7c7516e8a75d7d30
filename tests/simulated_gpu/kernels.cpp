#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "refuse.h"

// Leaves one stack for another: registers that a callee keeps go onto the one, and come from the other. (ucontext.h
// would ask the kernel for signal masks each time, which takes ten times as long.)
extern "C" void simulated_switch(void** from, void* to);
asm(R"(
.text
.type simulated_switch, @function
simulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simulated_switch, . - simulated_switch
)");

namespace simulated_gpu {
namespace {

enum class State { kReady, kAtBarrier, kAtExchange, kDone };

struct Thread {
  void* at = nullptr;  // its stack's pointer while it waits
  std::unique_ptr<char[]> stack;
  State state = State::kDone;
  unsigned exchanges = 0;
};

constexpr unsigned kWarp = 32, kMostThreads = 1024;
constexpr std::size_t kStackBytes = 64 << 10;

/// One block of threads, taking turns on the thread of the host that runs it.
struct Block {
  Thread threads[kMostThreads];
  std::uint64_t exchanged[2][kMostThreads];
  void* scheduler = nullptr;
  unsigned size = 0, running = 0, index = 0, count = 0;
  const Kernel* kernel = nullptr;
  const void* arguments = nullptr;
  std::int64_t units = 0;
};

thread_local Block* block = nullptr;

void leave(State state) {
  Thread& own = block->threads[block->running];
  own.state = state;
  simulated_switch(&own.at, block->scheduler);
}

void body() {
  block->kernel->run(block->arguments, block->units);
  leave(State::kDone);
}

std::uint64_t exchange(std::uint64_t bits, int lanes) {
  const unsigned own = block->running, side = block->threads[own].exchanges++ % 2;
  block->exchanged[side][own] = bits;
  leave(State::kAtExchange);
  return block->exchanged[side][own ^ static_cast<unsigned>(lanes)];
}

void start_threads() {
  for (unsigned t = 0; t < block->size; ++t) {
    Thread& thread = block->threads[t];
    if (thread.stack == nullptr) thread.stack = std::make_unique<char[]>(kStackBytes);
    // As if `body` had been left by simulated_switch before its first instruction.
    void** top = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(thread.stack.get() + kStackBytes) &
                                          ~std::uintptr_t{15});
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&body);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    thread.at = top;
    thread.state = State::kReady;
    thread.exchanges = 0;
  }
}

unsigned count_in(State state, unsigned begin, unsigned end) {
  return static_cast<unsigned>(std::count_if(block->threads + begin, block->threads + end,
                                             [&](const Thread& thread) { return thread.state == state; }));
}

/// Lets those go on that have met; false where none have.
bool release_those_that_met() {
  bool any = false;
  const auto release = [&](unsigned begin, unsigned end) {
    for (unsigned t = begin; t < end; ++t) block->threads[t].state = State::kReady;
    any = true;
  };
  for (unsigned begin = 0; begin < block->size; begin += kWarp)
    if (count_in(State::kAtExchange, begin, begin + kWarp) == kWarp) release(begin, begin + kWarp);
  if (count_in(State::kAtBarrier, 0, block->size) == block->size) release(0, block->size);
  return any;
}

void run_block() {
  start_threads();
  for (bool backwards = block->index % 2 == 1;; backwards = !backwards) {  // no order of threads is promised
    for (unsigned i = 0; i < block->size; ++i) {
      block->running = backwards ? block->size - 1 - i : i;
      Thread& thread = block->threads[block->running];
      if (thread.state == State::kReady) simulated_switch(&block->scheduler, thread.at);
    }
    if (count_in(State::kDone, 0, block->size) == block->size) return;
    if (!release_those_that_met())
      refuse(std::string("threads of one block wait at different places in ") + block->kernel->name);
  }
}

}  // namespace

void run_grid(const Kernel& kernel, const void* arguments, std::int64_t units, unsigned blocks, unsigned threads) {
  if (threads == 0 || threads % kWarp != 0 || threads > kMostThreads)
    refuse(std::string(kernel.name) + " is launched with blocks of " + std::to_string(threads) + " threads");
  thread_local const std::unique_ptr<Block> own = std::make_unique<Block>();
  block = own.get();
  block->size = threads;
  block->count = blocks;
  block->kernel = &kernel;
  block->arguments = arguments;
  block->units = units;
  for (block->index = 0; block->index < blocks; ++block->index) run_block();
}

}  // namespace simulated_gpu

// What CUDA C++ has and C++ has not.

namespace {

struct Dimension {
  unsigned x;
};

inline void wait_at_barrier() { simulated_gpu::leave(simulated_gpu::State::kAtBarrier); }

template <class T>
T of_other_lane(unsigned mask, T value, int lanes) {
  if (mask != 0xffffffffu) simulated_gpu::refuse("a shuffle that not all threads of the warp take part in");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = simulated_gpu::exchange(bits, lanes);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static thread_local
#define threadIdx (Dimension{simulated_gpu::block->running})
#define blockDim (Dimension{simulated_gpu::block->size})
#define blockIdx (Dimension{simulated_gpu::block->index})
#define gridDim (Dimension{simulated_gpu::block->count})
#define __syncthreads() wait_at_barrier()
#define __shfl_xor_sync(mask, value, lanes) of_other_lane(mask, value, lanes)

#include "kernel_source.inc"

namespace simulated_gpu {

const Kernel* find_kernel(const char* name) {
#define SIMULATED_KERNEL(name, Arguments, T)                                                                 \
  {#name "_" #T, sizeof(hesspect::fused::raw::Arguments<T>), [](const void* arguments, std::int64_t units) { \
     name##_##T(*static_cast<const hesspect::fused::raw::Arguments<T>*>(arguments), units);                  \
   }},
#define SIMULATED_KERNELS(name, Arguments) \
  SIMULATED_KERNEL(name, Arguments, float) SIMULATED_KERNEL(name, Arguments, double)
  static const Kernel kernels[] = {HESSPECT_FUSED_KERNELS(SIMULATED_KERNELS)};
  for (const Kernel& kernel : kernels)
    if (std::strcmp(kernel.name, name) == 0) return &kernel;
  return nullptr;
}

}  // namespace simulated_gpu
