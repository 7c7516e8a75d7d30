// A wish to stop that comes from within the process, and counts as a signal's does (stop_signal.h): of a run of several
// in a process, of which this one alone is to stop.
#pragma once

namespace hesspect {

/// Any thread. StopSignal::received() is true from here on, until it is withdrawn.
void request_stop();
void withdraw_stop_request();

}  // namespace hesspect
