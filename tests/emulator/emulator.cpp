// The engine of emulator.h: fibers and their scheduler.
#include "emulator.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace emulator {
namespace {

constexpr size_t kStack = 256 * 1024;

// ---- switching between fibers ----
#if defined(__x86_64__)
extern "C" void pulseline_emulator_switch(void** save, void* resume);
asm(R"(
.text
.globl pulseline_emulator_switch
.hidden pulseline_emulator_switch
.type pulseline_emulator_switch, @function
pulseline_emulator_switch:
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
)");
struct Context {
  void* stack_pointer = nullptr;
  void prepare(char* stack, size_t size, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + size) - 8;
    std::memset(static_cast<void*>(top), 0, 64);
    top[6] = reinterpret_cast<void*>(entry);  // above six saved registers; keeps 16-byte alignment
    stack_pointer = top;
  }
};
void switch_to(Context& from, Context& to) {
  pulseline_emulator_switch(&from.stack_pointer, to.stack_pointer);
}
#else
struct Context {
  ucontext_t context;
  void prepare(char* stack, size_t size, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = size;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
};
void switch_to(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
#endif

struct Copy {
  void* to;
  const void* from;
  size_t size, bytes;
  void arrive() const {
    if (bytes) std::memcpy(to, from, bytes);
    std::memset(static_cast<char*>(to) + bytes, 0, size - bytes);
  }
};

struct Fiber {
  Context context;
  bool done = false;
  uint64_t barriers = 0;
  std::vector<std::vector<Copy>> groups;  // committed, oldest first
  std::vector<Copy> open;
};

struct Warp {
  const char* what = nullptr;
  uint32_t mask = 0, arrived = 0;
  uint64_t meetings = 0;
  Words in[32], out[32];
};

struct Shared {
  const void* declaration;
  std::vector<uint64_t> bytes;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<Shared> shared;
  std::vector<uint64_t> dynamic;
  size_t waiting = 0;
  uint64_t barriers = 0;
};

Settings the_settings;
int64_t launches = 0;  // before this one, since the settings were made
bool faulty() { return the_settings.launch < 0 || the_settings.launch == launches; }
std::string the_complaint;
Block* block = nullptr;
Index3 grid_extent, block_extent, block_at;
unsigned current = 0;
uint64_t progress = 0;  // counts everything that may let a waiting thread go on
Context scheduler;
void (*the_body)(void*);
void* the_context;

char* stacks(size_t count) {
  static char* memory = nullptr;
  static size_t held = 0;
  if (count > held) {
    if (memory) munmap(memory, held * kStack);
    memory = static_cast<char*>(mmap(nullptr, count * kStack, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    held = count;
  }
  return memory;
}

void yield() { switch_to(block->fibers[current].context, scheduler); }

void complain(const std::string& text) {
  if (the_complaint.empty())
    the_complaint = text + " (block " + std::to_string(block_at.x) + "," +
                    std::to_string(block_at.y) + "," + std::to_string(block_at.z) + ", thread " +
                    std::to_string(current) + ")";
}

[[noreturn]] void give_up(const std::string& text) {
  complain(text);
  for (;;) yield();
}

void entry() {
  the_body(the_context);
  Fiber& f = block->fibers[current];
  if (!f.open.empty()) complain("copies were never committed");
  f.done = true;
  ++progress;
  for (;;) yield();
}

// Until all lanes of a warp wait for others.
bool run_warp(Block& b, size_t warp, size_t threads, size_t& left) {
  uint64_t before;
  do {
    before = progress;
    for (size_t n = 0; n < 32; ++n) {
      const size_t thread = warp * 32 + (the_settings.reversed ? 31 - n : n);
      if (thread >= threads || b.fibers[thread].done) continue;
      current = unsigned(thread);
      switch_to(scheduler, b.fibers[thread].context);
      left -= b.fibers[thread].done;
      if (!the_complaint.empty()) return false;
    }
  } while (progress != before);
  return true;
}

bool run_block(size_t threads, size_t dynamic_bytes) {
  Block here;
  block = &here;
  here.fibers.resize(threads);
  here.warps.resize((threads + 31) / 32);
  here.dynamic.assign((dynamic_bytes + 7) / 8, ~uint64_t(0));
  char* memory = stacks(threads);
  for (size_t i = 0; i < threads; ++i)
    here.fibers[i].context.prepare(memory + i * kStack, kStack, entry);
  for (size_t left = threads; left;) {
    const uint64_t before = progress;
    for (size_t n = 0; n < here.warps.size(); ++n) {
      const size_t warp = the_settings.reversed ? here.warps.size() - 1 - n : n;
      if (!run_warp(here, warp, threads, left)) return false;
    }
    if (left && progress == before) {
      complain(std::string("threads wait for ever, one of them for ") +
               (here.waiting ? "a barrier" : "other lanes of its warp"));
      return false;
    }
  }
  return true;
}

}  // namespace

Settings& settings() { return the_settings; }
const char* complaint() { return the_complaint.c_str(); }
Index3 block_index() { return block_at; }
Index3 block_size() { return block_extent; }
Index3 grid_size() { return grid_extent; }
Index3 thread_index() {
  const unsigned x = block_extent.x, y = block_extent.y;
  return {current % x, current / x % y, current / (x * y)};
}

bool run(Index3 grid, Index3 extent, size_t dynamic_bytes, void (*body)(void*), void* context) {
  the_complaint.clear();
  grid_extent = grid;
  block_extent = extent;
  the_body = body;
  the_context = context;
  const size_t threads = size_t(extent.x) * extent.y * extent.z;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_at = {x, y, z};
        if (!run_block(threads, dynamic_bytes)) return false;
      }
  ++launches;
  return true;
}

Words collective(const char* what, uint32_t mask, const Words& in, Compute compute) {
  Warp& w = block->warps[current / 32];
  const uint32_t lane = current % 32, bit = 1u << lane;
  if (!(mask & bit)) give_up(std::string(what) + " by a lane outside its own mask");
  if (!w.arrived) {
    w.what = what;
    w.mask = mask;
  } else if (w.mask != mask || std::strcmp(w.what, what) != 0) {
    give_up(std::string(what) + " meets " + w.what + ": the lanes of a warp have parted");
  }
  w.in[lane] = in;
  w.arrived |= bit;
  const uint64_t meeting = w.meetings;
  if (w.arrived == mask) {
    compute(mask, w.in, w.out);
    w.arrived = 0;
    ++w.meetings;
    ++progress;
  } else {
    while (w.meetings == meeting) yield();
  }
  return w.out[lane];
}

// Threads that have returned no longer count: what CUDA leaves undefined shows as a wrong result.
void barrier() {
  Block& b = *block;
  const int64_t beyond = int64_t(b.fibers[current].barriers++) - the_settings.skip;
  const int64_t every = the_settings.every;
  if (faulty() && the_settings.skip >= 0 &&
      (beyond == 0 || (every && beyond > 0 && beyond % every == 0)))
    return;
  const uint64_t number = b.barriers;
  if (++b.waiting == b.fibers.size()) {
    b.waiting = 0;
    ++b.barriers;
    ++progress;
    return;
  }
  while (b.barriers == number) yield();
}

void* dynamic_shared() { return block->dynamic.data(); }

void* shared(const void* declaration, size_t bytes) {
  // A fault may use what was never written: as -1 it counts nothing and the test survives.
  const bool intact = the_settings.skip < 0 && the_settings.early == 0;
  const uint64_t garbage = the_settings.reversed && intact ? 0x7fffffff7fffffffu : ~uint64_t(0);
  for (Shared& s : block->shared)
    if (s.declaration == declaration) return s.bytes.data();
  block->shared.push_back({declaration, std::vector<uint64_t>((bytes + 23) / 8, garbage)});
  return block->shared.back().bytes.data();
}

void copy_async(void* to, const void* from, size_t size, size_t bytes) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % size)
    give_up("an asynchronous copy is not aligned");
  if (bytes > size) give_up("an asynchronous copy is larger than its room");
  const Copy copy = {to, from, size, bytes};
  if (the_settings.eager) copy.arrive();
  block->fibers[current].open.push_back(copy);
}
void copies_commit() {
  Fiber& f = block->fibers[current];
  f.groups.push_back(std::move(f.open));
  f.open.clear();
}
void copies_wait(int left) {
  auto& groups = block->fibers[current].groups;
  const size_t keep = size_t(left + (faulty() ? the_settings.early : 0));
  while (groups.size() > keep) {
    if (!the_settings.eager)
      for (const Copy& c : groups.front()) c.arrive();
    groups.erase(groups.begin());
  }
}

}  // namespace emulator

// For the tests.
extern "C" __attribute__((visibility("default"))) void emulator_set(int reversed, int eager,
                                                                    int64_t launch, int64_t skip,
                                                                    int64_t every, int64_t early) {
  emulator::settings() = {reversed != 0, eager != 0, launch, skip, every, early};
  emulator::launches = 0;
}
