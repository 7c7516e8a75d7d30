#include "hesspect/core/gpu_support.h"

#include <dlfcn.h>

namespace hesspect {
namespace {

std::string why_not_loaded() {
  const char* const why = dlerror();
  return why == nullptr ? "no reason given" : why;
}

GpuLibrary load() {
#ifdef HESSPECT_HAVE_CUDA
  // Neither is ever closed: drivers and LibTorch keep threads and static objects.
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == nullptr) return {.lack = "no CUDA driver: " + why_not_loaded()};
  void* const library = dlopen("libhesspect_gpu.so", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr)
    return {.lack = "the library for GPUs can't be loaded: " + why_not_loaded(), .is_broken = true};
  using Entry = const GpuSupport* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "hesspect_gpu_support"));
  if (entry == nullptr) return {.lack = "the library for GPUs is another one: " + why_not_loaded(), .is_broken = true};
  return {.support = entry(), .lack = ""};
#else
  return {.lack = "this hesspect was built without CUDA: build it with a CUDA torch wheel"};
#endif
}

}  // namespace

const GpuLibrary& gpu_library() {
  static const GpuLibrary library = load();
  return library;
}

}  // namespace hesspect
