package text

import "testing"

func TestSaid(t *testing.T) {
	if err := Use(Chinese); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Use(English) })
	for en, want := range map[string]string{
		"the GPU's memory was full":                              "显存满了",
		"it ended by itself with exit status 1 while node 3 ran": "它自行结束，退出码 1，当时节点 3 在运行",
		"stopped by ann":                                         "被 ann 停止",
		"no such words, whatever they are":                       "no such words, whatever they are",
		"ended by signal 9 (SIGKILL), 8.1s after its start, at most 53 MiB of memory": "被信号 9（SIGKILL）结束，启动后 8.1s，内存最多用到 53 MiB",
		"exit status not seen, 8.1s after its start":                                  "没有看到退出码，启动后 8.1s",
		"ready, 8.1s after its start":                                                 "就绪，启动后 8.1s",
		"just before: 49 MiB of memory, 22.9 GiB of 23.5 GiB free on the machine":     "结束之前：内存 49 MiB，机器还有 22.9 GiB 空闲（共 23.5 GiB）",
		"portrait": "portrait",
		"running":  "运行中",
		"python3 -m pip install -r r.txt; or name another interpreter with worker.python": "python3 -m pip install -r r.txt；或用 worker.python 指定另一个解释器",
		"it was not ready, and its log had not moved for 5m0s":                            "它没有就绪，日志已 5m0s 没有动静",
	} {
		for range 2 { // found, then kept
			if got := Said(en); got != want {
				t.Errorf("Said(%q) = %q, want %q", en, got, want)
			}
		}
	}
	if got := N(1, "%d restart", "%d restarts"); got != "重启 1 次" {
		t.Errorf("one restart is %q", got)
	}
	if err := Use(English); err != nil {
		t.Fatal(err)
	}
	if got := N(1, "%d restart", "%d restarts"); got != "1 restart" {
		t.Errorf("one restart is %q", got)
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		setting, locale, want string
	}{
		{"", "zh_CN.UTF-8", Chinese},
		{"", "zh_TW.utf8", Chinese},
		{"", "zh_CN.GB18030", English}, // its terminal could not show UTF-8
		{"", "xx_YY.garbage", English},
		{"", "C", English},
		{"", "", English},
		{"zh-CN", "C", Chinese},
		{"en", "zh_CN.UTF-8", English},
	} {
		if got := Choose(c.setting, []string{"LANG=" + c.locale}); got != c.want {
			t.Errorf("setting %q, LANG=%q: %s, want %s", c.setting, c.locale, got, c.want)
		}
	}
	if got := Choose("", []string{"LANG=en_US.UTF-8", "LC_ALL=zh_CN.UTF-8"}); got != Chinese {
		t.Errorf("LC_ALL does not win over LANG: %s", got)
	}
}

func BenchmarkUse(b *testing.B) {
	for b.Loop() {
		loaded.Clear()
		if err := Use(Chinese); err != nil {
			b.Fatal(err)
		}
	}
	_ = Use(English)
}
