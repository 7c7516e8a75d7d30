#include "hesspect/core/random_probe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/core/timer.h"

namespace hesspect::random_probe_test {
namespace {

constexpr std::array kDistributions{ProbeDistribution::kRademacher, ProbeDistribution::kGaussian,
                                    ProbeDistribution::kSpherical};

template <class Real = double>
std::vector<Real> probe_entries(ProbeDistribution distribution, std::uint64_t seed, std::uint64_t probe,
                                std::int64_t begin, std::int64_t count) {
  std::vector<Real> entries(static_cast<std::size_t>(count));
  fill_probe(distribution, seed, probe, begin, count, entries.data());
  return entries;
}

// The known answers that ship with Random123 (kat_vectors, "philox4x32 10").
TEST(Philox, KnownAnswers) {
  using Block = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomProbe, EntriesDoNotDependOnChunks) {
  constexpr std::int64_t kBegin = (std::int64_t{1} << 40) - 77;  // block numbers beyond 32 bits
  constexpr std::int64_t kCount = 1000;
  for (auto distribution : kDistributions) {
    const auto whole = probe_entries(distribution, 7, 3, kBegin, kCount);
    for (std::int64_t chunk : {1, 3, 64, 127, 128, 129, 500}) {
      std::vector<double> parts;
      for (std::int64_t at = 0; at < kCount; at += chunk) {
        const auto part = probe_entries(distribution, 7, 3, kBegin + at, std::min(chunk, kCount - at));
        parts.insert(parts.end(), part.begin(), part.end());
      }
      EXPECT_EQ(whole, parts) << to_string(distribution) << " in chunks of " << chunk;
    }
  }
}

TEST(RandomProbe, FloatIsTheRoundedDouble) {
  for (auto distribution : kDistributions) {
    const auto wide = probe_entries<double>(distribution, 1, 2, 5, 777);
    const auto narrow = probe_entries<float>(distribution, 1, 2, 5, 777);
    for (std::size_t i = 0; i < wide.size(); ++i) EXPECT_EQ(narrow[i], static_cast<float>(wide[i]));
  }
}

TEST(RandomProbe, NothingIsWrittenOutsideTheRange) {
  for (auto distribution : kDistributions) {
    std::vector<float> guarded(302, 99.0F);
    fill_probe(distribution, 1, 1, 61, 300, guarded.data() + 1);
    EXPECT_EQ(guarded.front(), 99.0F);
    EXPECT_EQ(guarded.back(), 99.0F);
    fill_probe(distribution, 1, 1, 61, 0, guarded.data());
    EXPECT_EQ(guarded.front(), 99.0F);
  }
}

TEST(RandomProbe, RademacherIsPlusMinusOne) {
  for (double entry : probe_entries(ProbeDistribution::kRademacher, 5, 0, 0, 10'000)) EXPECT_EQ(std::abs(entry), 1.0);
}

// Means of n terms of unit variance lie within 5/√n of their expectation but for one seed in two million.
TEST(RandomProbe, Moments) {
  constexpr std::int64_t n = 1'000'000;
  const double bound = 5 / std::sqrt(static_cast<double>(n));
  for (auto distribution : kDistributions) {
    const auto z = probe_entries(distribution, 2026, 11, 0, n);
    double sum = 0;
    double square = 0;
    double fourth = 0;
    double neighbours = 0;
    double far = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
      sum += z[i];
      square += z[i] * z[i];
      fourth += z[i] * z[i] * z[i] * z[i];
      neighbours += z[i] * z[(i + 1) % z.size()];
      far += z[i] * z[(i + 128) % z.size()];
    }
    const bool rademacher = distribution == ProbeDistribution::kRademacher;
    EXPECT_NEAR(sum / n, 0, bound);
    EXPECT_NEAR(square / n, 1, rademacher ? 0 : bound * std::sqrt(2.0));
    EXPECT_NEAR(fourth / n, rademacher ? 1 : 3, rademacher ? 0 : bound * std::sqrt(96.0));
    EXPECT_NEAR(neighbours / n, 0, bound);
    EXPECT_NEAR(far / n, 0, bound);
  }
}

TEST(RandomProbe, ProbesAndSeedsAreUncorrelated) {
  constexpr std::int64_t n = 200'000;
  const double bound = 5 / std::sqrt(static_cast<double>(n));
  constexpr std::uint64_t kFar = std::uint64_t{1} << 32;  // the high words count, too
  for (auto distribution : kDistributions) {
    const auto reference = probe_entries(distribution, 1, 1, 0, n);
    for (auto [seed, probe] : {std::pair<std::uint64_t, std::uint64_t>{1, 2}, {2, 1}, {1, 1 + kFar}, {1 + kFar, 1}}) {
      const auto other = probe_entries(distribution, seed, probe, 0, n);
      double dot = 0;
      for (std::size_t i = 0; i < other.size(); ++i) dot += reference[i] * other[i];
      EXPECT_NEAR(dot / n, 0, bound) << to_string(distribution) << " seed " << seed << " probe " << probe;
    }
  }
}

TEST(RandomProbe, GaussianTails) {
  constexpr std::int64_t n = 1'000'000;
  std::int64_t beyond3 = 0;
  for (double entry : probe_entries(ProbeDistribution::kGaussian, 3, 0, 0, n)) {
    ASSERT_TRUE(std::isfinite(entry));
    beyond3 += std::abs(entry) > 3 ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(beyond3), 2699.8, 5 * std::sqrt(2699.8));
}

TEST(RandomProbe, RademacherIsFast) {
  std::vector<float> entries(1 << 22);
  fill_probe(ProbeDistribution::kRademacher, 1, 1, 0, static_cast<std::int64_t>(entries.size()), entries.data());
  const Timer timer;
  fill_probe(ProbeDistribution::kRademacher, 1, 2, 0, static_cast<std::int64_t>(entries.size()), entries.data());
  const double ns = 1e9 * timer.elapsed_s() / static_cast<double>(entries.size());
  RecordProperty("ns_per_entry", std::to_string(ns));
  std::printf("Rademacher: %.2f ns per entry\n", ns);
  EXPECT_LT(ns, 50);  // about 0.5 where the machine is idle; the bound only catches a lost order of magnitude
}

TEST(RandomProbe, Names) {
  for (auto distribution : kDistributions) EXPECT_EQ(probe_distribution_from(to_string(distribution)), distribution);
  try {
    probe_distribution_from("rademcher");
    FAIL() << "nothing was thrown";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'rademacher'?"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace hesspect::random_probe_test
