// A message that has been begun and is waited for later, so that a rank can work meanwhile.
#pragma once

namespace hesspect {

/// Its tensors must stay as they are until wait() has returned. A message that is not waited for is an error but where
/// the job ends.
class Pending {
 public:
  Pending() = default;
  virtual ~Pending() = default;
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  /// Lets it go on, where nothing but calls moves it (MPI). Never waits. @throws CommError
  virtual void poll() {}
  /// Returns when its tensors may be used; on a GPU, by work that the current stream is given from here on.
  /// @throws CommError
  virtual void wait() = 0;
};

/// A message that was over when it was begun.
class AlreadyDone final : public Pending {
 public:
  void wait() override {}
};

}  // namespace hesspect
