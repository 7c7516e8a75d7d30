#include "hesspect/io/atomic_file.h"

#include <string>
#include <vector>

#include "hesspect/core/errors.h"
#include "temporary_file.h"

namespace hesspect {
namespace fs = std::filesystem;

void write_file_atomically(const fs::path& link, std::span<const std::byte> bytes) {
  const fs::path path = target_of(link);
  TemporaryFile file(path);
  file.write(bytes);
  file.sync_and_close();
  file.rename();
}

void make_folders(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> missing;  // from the folder upwards
  for (fs::path path = folder.has_filename() ? folder : folder.parent_path(); !fs::is_directory(path, error);) {
    missing.push_back(path);
    const fs::path above = folder_of(path);
    if (above == path) break;
    path = above;
  }
  for (auto path = missing.rbegin(); path != missing.rend(); ++path) {
    fs::create_directory(*path, error);
    if (error) throw InputError("cannot make the folder '" + folder.string() + "': " + error.message());
    sync_folder(folder_of(*path));
  }
}

void check_output(const fs::path& link, bool overwrite) {
  std::error_code error;
  const fs::path path = target_of(link);
  const fs::path folder = folder_of(path);
  if (!path.has_filename()) throw InputError("the output '" + path.string() + "' names a folder, not a file");
  const auto status = fs::status(folder, error);
  if (error || !fs::exists(status)) {
    if (error && error != std::errc::no_such_file_or_directory)
      throw InputError("cannot write '" + path.string() + "': " + error.message());
    throw InputError("cannot write '" + path.string() + "': the folder '" + folder.string() + "' does not exist");
  }
  if (!fs::is_directory(status))
    throw InputError("cannot write '" + path.string() + "': '" + folder.string() + "' is not a folder");
  const auto there = fs::status(link, error);  // of the link: /dev/stdout leads to a name that is none
  if (fs::is_directory(there)) throw InputError("cannot write '" + path.string() + "': it is a folder");
  if (fs::exists(there) && !fs::is_regular_file(there))
    throw InputError("cannot write '" + link.string() + "': it is a device, pipe or socket, not a file");
  if (fs::exists(there) && !overwrite)
    throw UsageError("the output '" + path.string() + "' exists; --force overwrites it");
  const TemporaryFile probe(path);
}

}  // namespace hesspect
