// Looks whether LibTorch is the one that hesspect was compiled against, before anything calls it: an environment may
// have another torch by now, and its classes may be laid out otherwise, which gives wrong numbers rather than an error.
// Part of the program alone, not of a room.
//
// Nothing of LibTorch is called, for that may crash: the version stands in torch/version.py, beside the folder of its
// libraries. Where there is no such file (a container that has the libraries alone) nothing is looked at.
#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace {

constexpr int kBadInput = 4;  // ExitCode::kBadInput
constexpr const char* kBuiltAgainst = HESSPECT_TORCH_VERSION;

struct Found {
  char folder[4096] = "";  // torch's
  char version[128] = "";
};

/// Takes the last part off a path. @return false where there is none
bool take_last_off(char* path) {
  char* const slash = std::strrchr(path, '/');
  if (slash == nullptr) return false;
  *slash = '\0';
  return true;
}

int look_at(dl_phdr_info* library, std::size_t, void* to) {
  Found& found = *static_cast<Found*>(to);
  const char* const path = library->dlpi_name;
  const char* const name = path == nullptr ? nullptr : std::strrchr(path, '/');
  if (name == nullptr || std::strcmp(name, "/libtorch_cpu.so") != 0) return 0;
  std::snprintf(found.folder, sizeof found.folder, "%s", path);
  if (!take_last_off(found.folder) || !take_last_off(found.folder)) return 1;
  char file[4200];
  std::snprintf(file, sizeof file, "%s/version.py", found.folder);
  std::FILE* const in = std::fopen(file, "r");
  if (in == nullptr) return 1;
  char line[512];
  while (found.version[0] == '\0' && std::fgets(line, sizeof line, in) != nullptr)
    std::sscanf(line, "__version__ = '%120[^'+]", found.version);  // what follows a + says what it was built for
  std::fclose(in);
  return 1;
}

/// The ranks of a host share its files, so that one of them says it for all.
bool is_first_of_host() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"})
    if (const char* rank = std::getenv(name); rank != nullptr) return std::atoi(rank) == 0;
  return true;
}

// Before all constructors of this program, which may call LibTorch. It is linked with lazy binding: a function that
// another LibTorch does not have is noticed where it is first called.
[[gnu::constructor(101)]] void end_with_another_torch() {
  Found found;
  dl_iterate_phdr(look_at, &found);
  const std::size_t length = std::strcspn(kBuiltAgainst, "+");
  if (found.version[0] == '\0' ||
      (std::strncmp(found.version, kBuiltAgainst, length) == 0 && found.version[length] == '\0'))
    return;
  if (is_first_of_host())
    std::fprintf(stderr,
                 "hesspect: error: built against torch %.*s, but torch %s is in use (%s): build it again with that one "
                 "(pip install --force-reinstall "
                 "--no-deps in the sources), or install torch %.*s\n",
                 static_cast<int>(length), kBuiltAgainst, found.version, found.folder, static_cast<int>(length),
                 kBuiltAgainst);
  else
    ::sleep(5);  // a launcher ends all ranks with the first that has ended, also the one that has something to say
  std::_Exit(kBadInput);
}

}  // namespace
