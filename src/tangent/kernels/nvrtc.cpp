#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nvrtc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <vector>

#include "gpu_source.h"
#include "hesspect/core/sha256.h"
#include "hesspect/tangent/gpu_kernels.h"
#include "list.h"

namespace hesspect::fused {
namespace {

/// NVRTC's functions. The library is opened at first use, for a run on CPUs needs none.
struct Nvrtc {
  Nvrtc() {
    const std::string name = "libnvrtc.so." + std::to_string(CUDART_VERSION / 1000);
    library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) throw std::runtime_error("can't open NVRTC: " + std::string(dlerror()));
    find(version, "nvrtcVersion");
    find(architectures_count, "nvrtcGetNumSupportedArchs");
    find(architectures, "nvrtcGetSupportedArchs");
    find(create, "nvrtcCreateProgram");
    find(destroy, "nvrtcDestroyProgram");
    find(compile, "nvrtcCompileProgram");
    find(log_size, "nvrtcGetProgramLogSize");
    find(log, "nvrtcGetProgramLog");
    find(cubin_size, "nvrtcGetCUBINSize");
    find(cubin, "nvrtcGetCUBIN");
    find(ptx_size, "nvrtcGetPTXSize");
    find(ptx, "nvrtcGetPTX");
    find(text, "nvrtcGetErrorString");
  }

  template <class F>
  void find(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (function == nullptr) throw std::runtime_error(std::string("NVRTC has no function ") + name);
  }

  void check(nvrtcResult result, const char* call) const {
    if (result != NVRTC_SUCCESS) throw std::runtime_error(std::string(call) + ": " + text(result));
  }

  void* library = nullptr;  // stays open
  decltype(&nvrtcVersion) version;
  decltype(&nvrtcGetNumSupportedArchs) architectures_count;
  decltype(&nvrtcGetSupportedArchs) architectures;
  decltype(&nvrtcCreateProgram) create;
  decltype(&nvrtcDestroyProgram) destroy;
  decltype(&nvrtcCompileProgram) compile;
  decltype(&nvrtcGetProgramLogSize) log_size;
  decltype(&nvrtcGetProgramLog) log;
  decltype(&nvrtcGetCUBINSize) cubin_size;
  decltype(&nvrtcGetCUBIN) cubin;
  decltype(&nvrtcGetPTXSize) ptx_size;
  decltype(&nvrtcGetPTX) ptx;
  decltype(&nvrtcGetErrorString) text;
};

const Nvrtc& nvrtc() {
  static const Nvrtc functions;
  return functions;
}

/// The newest GPU that NVRTC knows and that is no newer than this one. Machine code runs on all of its generation.
struct CompileTarget {
  int architecture;
  bool machine_code;
};
CompileTarget target_for(int capability) {
  int count = 0;
  nvrtc().check(nvrtc().architectures_count(&count), "nvrtcGetNumSupportedArchs");
  std::vector<int> known(static_cast<std::size_t>(count));
  nvrtc().check(nvrtc().architectures(known.data()), "nvrtcGetSupportedArchs");
  std::erase_if(known, [&](int each) { return each > capability; });
  if (known.empty())
    throw std::runtime_error("NVRTC knows no GPU of compute capability " + std::to_string(capability) + " or older");
  const int best = *std::max_element(known.begin(), known.end());
  return {best, best / 10 == capability / 10};
}

std::string option_of(const CompileTarget& target) {
  return std::string("--gpu-architecture=") + (target.machine_code ? "sm_" : "compute_") +
         std::to_string(target.architecture);
}

/// The hash of all that the image depends on.
std::string file_name_of(int capability) {
  int major = 0, minor = 0;
  nvrtc().check(nvrtc().version(&major, &minor), "nvrtcVersion");
  const std::string key = std::string(kGpuSource) + '\n' + option_of(target_for(capability)) + '\n' +
                          std::to_string(major) + '.' + std::to_string(minor);
  return "kernels-" + sha256_bytes(key.data(), key.size());
}

constexpr std::size_t kDigest = 64;  // hex digits before the image

}  // namespace

std::vector<const char*> gpu_kernel_names() {
#define HESSPECT_NAME(name, Arguments) #name,
  return {HESSPECT_FUSED_KERNELS(HESSPECT_NAME)};
#undef HESSPECT_NAME
}

std::string read_image(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in || all.size() <= kDigest) return {};
  const std::string image = all.substr(kDigest);
  return sha256_bytes(image.data(), image.size()) == all.substr(0, kDigest) ? image : std::string();
}

void write_image(const std::filesystem::path& file, const std::string& image) {
  std::error_code failed;
  std::filesystem::create_directories(file.parent_path(), failed);
  std::filesystem::path temporary = file;
  temporary += ".";
  temporary += std::to_string(getpid());
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  out << sha256_bytes(image.data(), image.size()) << image;
  out.close();
  if (out) std::filesystem::rename(temporary, file, failed);
  if (!out || failed) std::filesystem::remove(temporary, failed);
}

std::string compile_for_gpu(int capability) {
  const Nvrtc& api = nvrtc();
  const CompileTarget target = target_for(capability);
  const std::string architecture = option_of(target);
  const char* options[] = {architecture.c_str(), "--std=c++17"};
  nvrtcProgram program = nullptr;
  api.check(api.create(&program, kGpuSource, "hesspect_kernels.cu", 0, nullptr, nullptr), "nvrtcCreateProgram");
  const auto destroy = [&api](nvrtcProgram* each) { api.destroy(each); };
  const std::unique_ptr<nvrtcProgram, decltype(destroy)> owner(&program, destroy);
  const nvrtcResult compiled = api.compile(program, static_cast<int>(std::size(options)), options);
  if (compiled != NVRTC_SUCCESS) {
    std::size_t bytes = 0;
    api.check(api.log_size(program, &bytes), "nvrtcGetProgramLogSize");
    std::string log(bytes, '\0');
    api.check(api.log(program, log.data()), "nvrtcGetProgramLog");
    throw std::runtime_error("the kernels don't compile for a GPU with " + architecture + ": " + log);
  }
  std::size_t bytes = 0;
  api.check((target.machine_code ? api.cubin_size : api.ptx_size)(program, &bytes), "nvrtcGetCUBINSize");
  std::string image(bytes, '\0');
  api.check((target.machine_code ? api.cubin : api.ptx)(program, image.data()), "nvrtcGetCUBIN");
  return image;
}

std::string gpu_image(int capability, const std::filesystem::path& folder) {
  if (folder.empty()) return compile_for_gpu(capability);
  const std::filesystem::path file = folder / file_name_of(capability);
  std::string image = read_image(file);
  if (!image.empty()) return image;
  image = compile_for_gpu(capability);
  write_image(file, image);
  return image;
}

std::filesystem::path gpu_cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
    return std::filesystem::path(cache) / "hesspect";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
    return std::filesystem::path(home) / ".cache" / "hesspect";
  return {};
}

}  // namespace hesspect::fused
