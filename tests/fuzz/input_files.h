// Inputs as files: in memory for readers that map theirs (heap_file.cpp gives them out), on a file system in memory for
// those that open them by themselves or by a library.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "core/temporary_folder.h"

namespace hesspect::fuzz {

/// By name.
inline std::map<std::string, std::string, std::less<>>& files_in_memory() {
  static std::map<std::string, std::string, std::less<>> files;
  return files;
}

/// What a MappedFile of the returned path will hold.
inline std::filesystem::path in_memory(std::string_view bytes, const std::string& name = "input") {
  files_in_memory()[name] = bytes;
  return name;
}

/// Writes `bytes` to a file of that name, over what an earlier input left there. @return its path
inline std::filesystem::path on_disk(std::string_view bytes, const std::string& name = "input") {
  static const test::TemporaryFolder folder;
  std::filesystem::path path = folder.path() / name;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0 || ::write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
  ::close(file);
  return path;
}

}  // namespace hesspect::fuzz
