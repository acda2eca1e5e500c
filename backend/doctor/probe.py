import json, platform, sys

def say(**facts):
    print(json.dumps(facts), flush=True)

say(python=platform.python_version(), executable=sys.executable)
try:
    from importlib.metadata import PackageNotFoundError, version
    versions = {}
    for name in ("comfyui-frontend-package", "comfyui-workflow-templates", "comfyui-embedded-docs"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    say(versions=versions)
except Exception:
    pass
try:
    import torch
except BaseException as e:
    say(torch_error="%s: %s" % (type(e).__name__, e))
    sys.exit(0)
say(torch=torch.__version__, cuda=torch.version.cuda or "", hip=getattr(torch.version, "hip", None) or "")
why = ""
try:
    available = torch.cuda.is_available()
    if not available and (torch.version.cuda or getattr(torch.version, "hip", None)):
        try:
            torch.cuda.init()
        except Exception as e:
            why = str(e)
    say(available=available, why=why)
    if available:
        devices = []
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            arch = "" if getattr(torch.version, "hip", None) else "sm_%d%d" % (p.major, p.minor)
            devices.append({"name": p.name, "arch": arch})
        say(devices=devices, archs=torch.cuda.get_arch_list())
except Exception as e:
    say(available=False, why="%s: %s" % (type(e).__name__, e))
