// A library of its own (libhesspect_wait.so), which the dynamic linker initialises before libgomp because the program
// names it after that: libgomp reads its settings when it is initialised and has no call for this one.
//
// Between parallel regions libgomp's threads spin for 300,000 rounds, about a millisecond, before they sleep. Where
// other processes want the cores, those that spin keep from running the very thread that they wait for: on two cores at
// a load of nine a product of a small model took 1.8 s, and 0.05 s with 1,000 rounds.
#include <cstdlib>

namespace {

constexpr const char* kRounds = "1000";

[[gnu::constructor]] void wait_patiently() {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) setenv("GOMP_SPINCOUNT", kRounds, /*overwrite=*/0);
}

}  // namespace
