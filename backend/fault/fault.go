// Package fault holds the named points at which a test lets a process die,
// sleep or end. They are compiled in only with the build tag easelfault;
// without it Hit is an empty function that costs nothing.
//
// EASEL_FAULT holds what to do, as "name=action[,name=action]", where an action
// is kill-self, kill-parent, kill-worker, sleep=DURATION or exit=CODE.
// EASEL_FAULT_DIR names a directory for marker files: each point is hit once a
// directory, so that the process started in place of the one that died lives.
// kill-worker kills the pid in the file that EASEL_FAULT_PIDFILE names, or the
// one that the function given to Worker answers.
package fault
