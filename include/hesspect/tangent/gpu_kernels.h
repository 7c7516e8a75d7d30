// The fused kernels compiled for a GPU, by the NVRTC library that comes with the torch wheel.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hesspect::fused {

/// Each is there twice, as NAME_float and NAME_double.
std::vector<const char*> gpu_kernel_names();

/// Compiles the kernels; needs no GPU.
/// @param capability  of the GPU, 80 for 8.0
/// @return what the driver loads: machine code, or PTX where NVRTC does not know so new a GPU
/// @throws std::runtime_error with the compiler's log, or where NVRTC can't be loaded or knows no such GPU
std::string compile_for_gpu(int capability);

/// The same, from `folder` where an earlier process has left it; else compiled, and left there for the next. The file's
/// name is a hash of the kernels' source, the compiler's version and the kind of GPU.
std::string gpu_image(int capability, const std::filesystem::path& folder);

/// An image kept on disk, behind its SHA-256. A file that can't be read or is not whole is as none: empty. One that
/// can't be written is no error, for the image can be made again; it appears under its name only when it is whole.
std::string read_image(const std::filesystem::path& file);
void write_image(const std::filesystem::path& file, const std::string& image);

/// $XDG_CACHE_HOME/hesspect, or ~/.cache/hesspect; empty where neither is known.
std::filesystem::path gpu_cache_folder();

}  // namespace hesspect::fused
