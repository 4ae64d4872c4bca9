package apply

import "kubernaut.ai/e2e/test/infrastructure/kube/podtest"

const crashLoop = "CrashLoopBackOff"

var waiting, terminated, running, pod, container = podtest.Waiting, podtest.Terminated, podtest.Running, podtest.Pod, podtest.Container
